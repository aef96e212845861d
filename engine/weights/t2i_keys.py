"""T2I adapters (https://arxiv.org/abs/2302.08453): TencentARC's names and diffusers' (`adapter.`), configs from shapes.

An adapter takes a picture apart into squares of 8 x 8 pixels (16 x 16 for SDXL), each a cell of that many channels, and
has a level for each of the UNet's; a light one has narrow levels. Torch-free.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from engine.weights.header import Header, TensorInfo
from engine.weights.keymaps import UnknownLayout

PREFIX = "adapter."
LAYERS = 2  # in each level of TencentARC's full adapters
SQUARES = (8, 16)
_FULL = ("conv_in.weight", "body.0.block1.weight")
_LIGHT = ("body.0.in_conv.weight", "body.0.body.0.block1.weight")
_OURS = f"{PREFIX}body.0.resnets.0.block1.weight"
_LAYER = re.compile(r"body\.(\d+)\.(block[12]\..+)$")
_INNER = re.compile(r"(body\.\d+)\.body\.(\d+\.block[12]\..+)$")


def is_t2i(header: Header) -> bool:
    return _OURS in header or any(all(name in header for name in names) for names in (_FULL, _LIGHT))


def own_name(name: str, *, light: bool) -> str:
    """A tensor's name in T2IAdapter."""
    if name.startswith(PREFIX):
        return name
    inner, layer = _INNER.match(name), _LAYER.match(name)
    if inner:
        return f"{PREFIX}{inner[1]}.resnets.{inner[2]}"
    if layer and not light:
        level, number = divmod(int(layer[1]), LAYERS)
        return f"{PREFIX}body.{level}.resnets.{number}.{layer[2]}"
    way_in = re.match(r"body\.(\d+)\.in_conv\.(.+)$", name)
    if way_in and not light:
        return f"{PREFIX}body.{int(way_in[1]) // LAYERS}.in_conv.{way_in[2]}"
    return PREFIX + name


def is_light(names: Mapping[str, object]) -> bool:
    return not any(name.removeprefix(PREFIX) == "conv_in.weight" for name in names)


def t2i_config(tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """Of T2IAdapter, from tensors by its names. Raises UnknownLayout."""
    unknown = [name for name in tensors if ".skep." in name or ".down_opt." in name]
    first = "adapter.body.0.in_conv.weight" if is_light(tensors) else "adapter.conv_in.weight"
    squares = [side for side in SQUARES if tensors[first].shape[1] in (side**2, 3 * side**2)]
    if unknown or not squares:
        reason = f"{unknown[0]} is not known" if unknown else f"{first} sees {tensors[first].shape[1]} channels"
        raise UnknownLayout(what="T2I adapter", reason=reason)
    side = squares[0]
    levels = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("adapter.body."))
    layers = 1 + max(int(name.split(".")[4]) for name in tensors if name.startswith("adapter.body.0.resnets."))
    width = "adapter.body.{}.out_conv.weight" if is_light(tensors) else "adapter.body.{}.resnets.0.block1.weight"
    channels = [tensors[width.format(level)].shape[0] for level in range(levels)]
    kind = "light_adapter" if is_light(tensors) else "full_adapter" if side == SQUARES[0] else "full_adapter_xl"
    return {
        "in_channels": tensors[first].shape[1] // side**2,
        "channels": tuple(channels[:-1] if kind == "light_adapter" else channels),
        "num_res_blocks": layers,
        "downscale_factor": side,
        "adapter_type": kind,
    }
