"""ControlNets of UNets, in the layout of their first code (LDM's names, `zero_convs`, `input_hint_block`) and in
diffusers': names, and configs from shapes. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.weights import keymaps
from engine.weights.header import Header, TensorInfo
from engine.weights.keymaps import KeyMap
from engine.weights.unet_config import diffusers_unet_config, unet_config

PREFIXES = ("control_model.", "")
CONTROL_LORA = "lora_controlnet"  # a mark in files that hold differences to a UNet as low-rank pairs


def control_prefix(header: Header) -> str | None:
    """Where such a net lies in a file; None where there is none."""
    for prefix in PREFIXES:
        ldm = f"{prefix}zero_convs.0.0.weight" in header and f"{prefix}input_hint_block.0.weight" in header
        if ldm or f"{prefix}controlnet_cond_embedding.conv_in.weight" in header:
            return prefix
    return None


def is_ldm(tensors: Mapping[str, TensorInfo]) -> bool:
    return "zero_convs.0.0.weight" in tensors


def control_config(tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """What shapes say of ControlNetModel's config: all but heads and groups. The half of a UNet that it is has no way
    out, so that of a UNet is taken to be as wide as its way in. Raises UnknownLayout."""
    if is_ldm(tensors):
        config = unet_config({**tensors, "out.2.weight": _swapped(tensors["input_blocks.0.0.weight"])})
        vector, hint = tensors.get("label_emb.0.0.weight"), [f"input_hint_block.{i}.weight" for i in _hint(tensors)]
    else:
        config = diffusers_unet_config({**tensors, "conv_out.weight": _swapped(tensors["conv_in.weight"])})
        vector, blocks = tensors.get("add_embedding.linear_1.weight"), _cond_blocks(tensors)
        hint = ["controlnet_cond_embedding.conv_in.weight", *blocks[1::2]]
    config |= _hint_config(tensors, hint)
    if vector is not None:
        config["projection_class_embeddings_input_dim"] = vector.shape[1]
    return config


def hint_config(tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """Of a net in LDM's names, what concerns its hint alone."""
    return _hint_config(tensors, [f"input_hint_block.{i}.weight" for i in _hint(tensors)])


def _hint_config(tensors: Mapping[str, TensorInfo], names: list[str]) -> dict[str, Any]:
    channels = tuple(tensors[name].shape[0] for name in names)
    return {"conditioning_channels": tensors[names[0]].shape[1], "conditioning_embedding_out_channels": channels}


def control_map(config: Mapping[str, Any]) -> KeyMap:
    """LDM's names <-> ControlNetModel of this config."""
    steps = 2 * (len(config["conditioning_embedding_out_channels"]) - 1)  # a layer as it is and one that halves
    layers = config["layers_per_block"]
    levels = len(config["block_out_channels"])
    outputs = 1 + layers * levels + levels - 1
    pairs = [
        *keymaps.unet_map(config).pairs,
        ("middle_block_out.0", "controlnet_mid_block"),
        *((f"zero_convs.{i}.0", f"controlnet_down_blocks.{i}") for i in range(outputs)),
        ("input_hint_block.0", "controlnet_cond_embedding.conv_in"),
        *((f"input_hint_block.{2 * i + 2}", f"controlnet_cond_embedding.blocks.{i}") for i in range(steps)),
        (f"input_hint_block.{2 * steps + 2}", "controlnet_cond_embedding.conv_out"),
    ]
    return KeyMap(tuple(pairs))


def _hint(tensors: Mapping[str, TensorInfo]) -> list[int]:
    """The first layer of the hint's block, and those that halve it: every fourth but the last."""
    last = max(int(name.split(".")[1]) for name in tensors if name.startswith("input_hint_block."))
    return list(range(0, last, 4))


def _cond_blocks(tensors: Mapping[str, TensorInfo]) -> list[str]:
    names = []
    while (name := f"controlnet_cond_embedding.blocks.{len(names)}.weight") in tensors:
        names.append(name)
    return names


def _swapped(info: TensorInfo) -> TensorInfo:
    return TensorInfo(info.dtype, (info.shape[1], info.shape[0], *info.shape[2:]))
