"""The config of a UNet from the shapes in its file, in LDM's names or diffusers'. Torch-free.

Raises UnknownLayout for what is no UNet of residual blocks and transformers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from engine.weights.header import TensorInfo
from engine.weights.keymaps import UnknownLayout, count_of


def unet_config(tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """What the shapes of an LDM UNet say of its config: every field of UNet2DConditionModel but heads and groups.

    Raises UnknownLayout.
    """
    if "input_blocks.0.0.weight" not in tensors:
        raise UnknownLayout(what="UNet", reason="input_blocks.0.0.weight is missing")
    depth = _depths(tensors)
    channels: list[int] = []
    layers: list[int] = [0]
    depths: list[list[int]] = [[]]
    for block in range(1, 1 + max(int(k.split(".")[1]) for k in tensors if k.startswith("input_blocks."))):
        if f"input_blocks.{block}.0.op.weight" in tensors:
            layers.append(0)
            depths.append([])
            continue
        conv = tensors.get(f"input_blocks.{block}.0.out_layers.3.weight")
        if conv is None:
            raise UnknownLayout(
                what="UNet", reason=f"input_blocks.{block} is neither a residual block nor a downsampler"
            )
        if not layers[-1]:
            channels.append(conv.shape[0])
        layers[-1] += 1
        depths[-1].append(depth.get(f"input_blocks.{block}.1", 0))
    if len(channels) != len(layers) or len(set(layers)) != 1:
        raise UnknownLayout(what="UNet", reason=f"its levels have {layers} blocks with {depths} transformer layers")
    count = layers[0] + 1
    up = [[depth.get(f"output_blocks.{level * count + i}.1", 0) for i in range(count)] for level in range(len(layers))]
    if not _has(tensors, "output_blocks."):  # half a UNet, as a ControlNet is
        up = [level[:1] * count for level in reversed(depths)]
    middle = depth.get("middle_block.1") or (0 if _has(tensors, "middle_block.") else None)
    projection = next((t for k, t in tensors.items() if k.endswith(".proj_in.weight")), None)
    keys = next((t for k, t in tensors.items() if k.endswith(".attn2.to_k.weight")), None)
    if projection is None or keys is None:
        raise UnknownLayout(what="UNet", reason="it has no cross attention")
    return {
        "in_channels": tensors["input_blocks.0.0.weight"].shape[1],
        "out_channels": tensors["out.2.weight"].shape[0],
        "block_out_channels": tuple(channels),
        "layers_per_block": layers[0],
        **_attention(depths, middle, up),
        "cross_attention_dim": keys.shape[1],
        "use_linear_projection": len(projection.shape) == 2,
        **_second_embedding(tensors.get("label_emb.0.0.weight")),
    }


def diffusers_unet_config(tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """As `unet_config`, of a UNet whose names are diffusers'."""
    depth = _depths(tensors)
    levels = count_of(tensors, "down_blocks.{}.resnets.0.conv1.weight")
    layers = [count_of(tensors, f"down_blocks.{level}.resnets.{{}}.conv1.weight") for level in range(levels)]
    down, up = (
        [[depth.get(f"{side}_blocks.{level}.attentions.{i}", 0) for i in range(count)] for level in range(levels)]
        for side, count in (("down", max(layers, default=0)), ("up", max(layers, default=0) + 1))
    )
    if not _has(tensors, "up_blocks."):
        up = [level[:1] * (max(layers, default=0) + 1) for level in reversed(down)]
    middle = depth.get("mid_block.attentions.0") or (0 if _has(tensors, "mid_block.") else None)
    keys = next((t for k, t in tensors.items() if k.endswith(".attn2.to_k.weight")), None)
    projection = next((t for k, t in tensors.items() if k.endswith(".proj_in.weight")), None)
    if not levels or len(set(layers)) != 1 or keys is None or projection is None:
        raise UnknownLayout(what="UNet", reason=f"its levels have {layers} blocks with {down} transformer layers")
    return {
        "in_channels": tensors["conv_in.weight"].shape[1],
        "out_channels": tensors["conv_out.weight"].shape[0],
        "block_out_channels": tuple(
            tensors[f"down_blocks.{level}.resnets.0.conv1.weight"].shape[0] for level in range(levels)
        ),
        "layers_per_block": layers[0],
        **_attention(down, middle, up),
        "cross_attention_dim": keys.shape[1],
        "use_linear_projection": len(projection.shape) == 2,
        **_second_embedding(tensors.get("add_embedding.linear_1.weight")),
    }


def _attention(down: list[list[int]], middle: int | None, up: list[list[int]]) -> dict[str, Any]:
    """Transformer layers a block, level by level on the way down and on the way up; `middle` is 0 for a middle block
    without attention, None without one. Most UNets have as many in all blocks of a level and in the middle as in the
    last level; distilled ones (SSD-1B, Segmind Vega, KOALA) are cut here and there.

    Raises UnknownLayout where a level attends in some blocks only.
    """
    if any(len({depth > 0 for depth in level}) != 1 for level in (*down, *up)):
        raise UnknownLayout(what="UNet", reason=f"its levels have {down} and {up} transformer layers")
    config: dict[str, Any] = {
        "down_block_types": tuple("CrossAttnDownBlock2D" if level[0] else "DownBlock2D" for level in down),
        "up_block_types": tuple("CrossAttnUpBlock2D" if level[0] else "UpBlock2D" for level in up),
    }
    if not middle:
        config["mid_block_type"] = None if middle is None else "UNetMidBlock2D"
    first = [level[0] for level in down]
    levels = (*zip(down, first, strict=True), *zip(up, first[::-1], strict=True))
    if all(set(level) == {depth} for level, depth in levels):
        # The middle block has as many as the last level would have.
        return {**config, "transformer_layers_per_block": (*(d or 1 for d in first[:-1]), first[-1] or middle or 1)}
    config["transformer_layers_per_block"] = [level if level[0] else 1 for level in down]
    return {**config, "reverse_transformer_layers_per_block": [level if level[0] else 1 for level in up]}


def _second_embedding(first: TensorInfo | None) -> dict[str, Any]:
    """Of an embedding of size and pooled text, from its first layer."""
    return {} if first is None else {"projection_class_embeddings_input_dim": first.shape[1]}


def _has(tensors: Mapping[str, TensorInfo], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in tensors)


def _depths(tensors: Mapping[str, TensorInfo]) -> dict[str, int]:
    """{attention block: how many transformer layers it has}"""
    depths: dict[str, int] = {}
    for name in tensors:
        if found := re.match(r"(.*?)\.transformer_blocks\.(\d+)\.", name):
            depths[found[1]] = max(depths.get(found[1], 0), int(found[2]) + 1)
    return depths
