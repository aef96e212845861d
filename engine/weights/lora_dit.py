"""The names that LoRA files have for the layers of Flux, SD3 and T5, in every dialect. Torch-free.

Kohya and ComfyUI name the layers of the makers' files, of which one may be several of ours; diffusers, OneTrainer and
SimpleTuner name ours.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.weights.fused import FusedMap
from engine.weights.lora import Target

_MAKER = ("diffusion_model.", "model.diffusion_model.", "base_model.model.diffusion_model.", "")
_OURS = ("transformer.", "base_model.model.transformer.", "base_model.model.", "diffusion_model.", "")
_FLAT = ("lora_unet_", "lora_transformer_", "lycoris_")


def denoiser_names(modules: Iterable[str], layout: FusedMap) -> dict[str, Target]:
    """{name in any dialect: module, or the modules that share its rows} of a transformer."""
    known = set(modules)
    table: dict[str, Target] = {}
    for module in known:
        table |= _named(module, _OURS, module)
    for layer, pieces in layout.fused.items():
        if all(piece.module in known for piece in pieces):
            table |= _named(layer, _MAKER, pieces)
    for layer, module in layout.plain.pairs:
        if module in known:
            table |= _named(layer, _MAKER, module)
    return table


def t5_names(modules: Iterable[str], numbers: Iterable[str], part: str) -> dict[str, Target]:
    """Of a T5 encoder; `numbers` are kohya's for it ("2", "3"), `part` diffusers' name ("text_encoder_2")."""
    table: dict[str, Target] = {}
    flat = [f"lora_te{number}_" for number in numbers]
    for module in modules:
        dotted = (f"{part}.", "text_encoders.t5xxl.transformer.", f"base_model.model.{part}.")
        table |= _named(module, dotted, module, flat)
    return table


def _named(name: str, dotted: Iterable[str], target: Target, flat: Iterable[str] = _FLAT) -> dict[str, Target]:
    names = [prefix + name for prefix in dotted]
    names += [prefix + name.replace(".", "_") for prefix in flat]
    return dict.fromkeys(names, target)
