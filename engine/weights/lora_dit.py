"""The names that LoRA files have for the layers of Flux, SD3 and T5, in every dialect. Torch-free.

Kohya and ComfyUI name the layers of the makers' files, of which one may be several of ours; diffusers, OneTrainer and
SimpleTuner name ours. XLabs name the attention processors of BFL's blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from engine.weights.fused import FusedMap
from engine.weights.header import Header
from engine.weights.lora import Target

_MAKER = ("diffusion_model.", "model.diffusion_model.", "base_model.model.diffusion_model.", "")
_OURS = ("transformer.", "base_model.model.transformer.", "base_model.model.", "diffusion_model.", "")
_FLAT = ("lora_unet_", "lora_transformer_", "lycoris_")
_DOUBLE = re.compile(r"(double_blocks\.\d+)\.(img|txt)_attn\.(qkv|proj)$")
_SINGLE = re.compile(r"(single_blocks\.\d+)\.linear([12])$")


def denoiser_names(modules: Iterable[str], layout: FusedMap) -> dict[str, Target]:
    """{name in any dialect: module, or the modules that share its rows} of a transformer."""
    known = set(modules)
    table: dict[str, Target] = {}
    for module in known:
        table |= _named(module, _OURS, module)
    for layer, target in _layers(known, layout):
        table |= _named(layer, _MAKER, target)
        of_xlabs = _xlabs(layer, target)
        if of_xlabs:
            table |= _named(of_xlabs[0], _MAKER, of_xlabs[1], flat=())
    return table


def control_lora(header: Header) -> Header:
    """BFL's LoRAs for a control picture in the words of others: they add to biases as well, and hold new scales of
    norms. Any other header as it is."""
    if not {"img_in.lora_A.weight", "double_blocks.0.img_attn.norm.query_norm.scale"} <= header.tensors.keys():
        return header
    words = ((".lora_B.bias", ".diff_b"), ("_norm.scale", "_norm.set_weight"))
    tensors = {}
    for name, info in header.tensors.items():
        new = next((name.removesuffix(old) + own for old, own in words if name.endswith(old)), name)
        tensors[new] = replace(info, source=info.source or name)
    return replace(header, tensors=tensors)


def t5_names(modules: Iterable[str], numbers: Iterable[str], part: str) -> dict[str, Target]:
    """Of a T5 encoder; `numbers` are kohya's for it ("2", "3"), `part` diffusers' name ("text_encoder_2")."""
    table: dict[str, Target] = {}
    flat = [f"lora_te{number}_" for number in numbers]
    for module in modules:
        dotted = (f"{part}.", "text_encoders.t5xxl.transformer.", f"base_model.model.{part}.")
        table |= _named(module, dotted, module, flat)
    return table


def _layers(known: set[str], layout: FusedMap) -> Iterator[tuple[str, Target]]:
    """The layers of the maker's files that a model has, norms with a scale in place of a weight among them."""
    for layer, pieces in layout.fused.items():
        if all(piece.module in known for piece in pieces):
            yield layer, pieces
    for layer, module in layout.plain.pairs:
        if module.removesuffix(".weight") in known:
            yield layer.removesuffix(".scale").removesuffix(".weight"), module.removesuffix(".weight")


def _xlabs(layer: str, target: Target) -> tuple[str, Target] | None:
    """XLabs' name of a layer of Flux' attention, and what of it is meant: of a single block's first, q, k and v."""
    double, single = _DOUBLE.match(layer), _SINGLE.match(layer)
    if double:
        return f"{double[1]}.processor.{double[3]}_lora{1 if double[2] == 'img' else 2}", target
    if single and single[2] == "1":
        return f"{single[1]}.processor.qkv", target[:3]
    return (f"{single[1]}.processor.proj", target) if single else None


def _named(name: str, dotted: Iterable[str], target: Target, flat: Iterable[str] = _FLAT) -> dict[str, Target]:
    names = [prefix + name for prefix in dotted]
    names += [prefix + name.replace(".", "_") for prefix in flat]
    return dict.fromkeys(names, target)
