"""ControlNets of diffusion transformers: names of their files <-> diffusers' modules, and configs from shapes.

Flux' are in diffusers' names (InstantX, Shakker Labs, Alimama, Jasper) or in those of BFL with a block for the hint's
pixels (XLabs). SD3's are in diffusers' names (InstantX, Alimama); Stability's own for 3.5 large see the picture alone,
through the large model's own way in. Torch-free.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.weights.dit import flux_config, flux_map, sd3_config
from engine.weights.fused import FusedMap, Piece, pieces
from engine.weights.header import Header, TensorInfo
from engine.weights.keymaps import Config, KeyMap

_OUT = "controlnet_blocks.0.weight"
_HINT_LAYERS = 6  # of the hint's block between its first and last, each with an activation behind it


def is_flux_control(header: Header) -> bool:
    ours = "controlnet_x_embedder.weight" in header and "transformer_blocks.0.attn.add_q_proj.weight" in header
    return _OUT in header and (ours or is_flux_maker(header.tensors))


def is_flux_maker(tensors: Mapping[str, TensorInfo]) -> bool:
    """In BFL's names."""
    return "pos_embed_input.weight" in tensors and "double_blocks.0.img_attn.qkv.weight" in tensors


def is_sd3_control(header: Header) -> bool:
    joint = "transformer_blocks.0.attn.add_q_proj.weight" in header
    alone = "transformer_blocks.0.attn.to_q.weight" in header and "context_embedder.weight" not in header
    return _OUT in header and "pos_embed_input.proj.weight" in header and (joint or alone or is_stability(header))


def is_stability(tensors: Mapping[str, TensorInfo] | Header) -> bool:
    """Stability's own names."""
    return (
        "transformer_blocks.0.attn.qkv.weight" in tensors and "transformer_blocks.0.adaLN_modulation.1.bias" in tensors
    )


def flux_control_config(tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """Of FluxControlNetModel, and `hint_channels`: of a token of the hint. Raises UnknownLayout."""
    maker = is_flux_maker(tensors)
    first = tensors.get("img_in.weight" if maker else "x_embedder.weight")
    out = "final_layer.linear.weight" if maker else "proj_out.weight"
    config = flux_config({**tensors, out: TensorInfo(first.dtype, first.shape[::-1])} if first else tensors)
    del config["out_channels"]
    hint = "input_hint_block.14.weight" if maker else "input_hint_block.conv_out.weight"
    modes = tensors.get("controlnet_mode_embedder.weight")
    return config | {
        "hint_channels": tensors["pos_embed_input.weight" if maker else "controlnet_x_embedder.weight"].shape[1],
        "conditioning_embedding_channels": tensors[hint].shape[0] if hint in tensors else None,
        "num_mode": modes.shape[0] if modes else None,
    }


def flux_control_map(config: Config) -> FusedMap:
    """BFL's names -> FluxControlNetModel of this config."""
    base = flux_map(config)
    last = 2 * (_HINT_LAYERS + 1)
    pairs = [
        ("pos_embed_input", "controlnet_x_embedder"),
        ("controlnet_mode_embedder", "controlnet_mode_embedder"),
        *_same("controlnet_blocks", config["num_layers"]),
        *_same("controlnet_single_blocks", config["num_single_layers"]),
        ("input_hint_block.0", "input_hint_block.conv_in"),
        *((f"input_hint_block.{2 * i + 2}", f"input_hint_block.blocks.{i}") for i in range(_HINT_LAYERS)),
        (f"input_hint_block.{last}", "input_hint_block.conv_out"),
    ]
    return FusedMap(KeyMap((*base.plain.pairs, *pairs)), base.fused)


def sd3_control_config(tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """Of SD3ControlNetModel. Raises UnknownLayout."""
    hint = tensors["pos_embed_input.proj.weight"].shape
    if "context_embedder.weight" not in tensors:
        return _stability_config(tensors, hint)
    channels, patch = tensors["pos_embed.proj.weight"].shape[1], hint[2]
    out = TensorInfo("F32", (channels * patch**2, hint[0]))
    config = sd3_config({**tensors, "proj_out.weight": out})
    return config | {"extra_conditioning_channels": hint[1] - channels}


def stability_map(config: Config) -> FusedMap:
    """Stability's names -> SD3ControlNetModel of this config, which sees no text."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    plain = [
        ("pos_embed_input.proj", "pos_embed_input.proj"),
        *_same("controlnet_blocks", config["num_layers"]),
        ("t_embedder.mlp.0", "time_text_embed.timestep_embedder.linear_1"),
        ("t_embedder.mlp.2", "time_text_embed.timestep_embedder.linear_2"),
        ("y_embedder.mlp.0", "time_text_embed.text_embedder.linear_1"),
        ("y_embedder.mlp.2", "time_text_embed.text_embedder.linear_2"),
        ("time_text_embed", "time_text_embed"),
    ]
    fused: dict[str, tuple[Piece, ...]] = {}
    for i in range(config["num_layers"]):
        block = f"transformer_blocks.{i}"
        fused[f"{block}.attn.qkv"] = pieces((f"{block}.attn.to_{name}" for name in "qkv"), (width,) * 3)
        plain += [
            (f"{block}.attn.proj", f"{block}.attn.to_out.0"),
            (f"{block}.adaLN_modulation.1", f"{block}.norm1.linear"),
            (f"{block}.mlp.fc1", f"{block}.ff.net.0.proj"),
            (f"{block}.mlp.fc2", f"{block}.ff.net.2"),
        ]
    return FusedMap(KeyMap(tuple(plain)), fused)


def _stability_config(tensors: Mapping[str, TensorInfo], hint: tuple[int, ...]) -> dict[str, Any]:
    pooled = next(
        tensors[name].shape[1]
        for name in ("y_embedder.mlp.0.weight", "time_text_embed.text_embedder.linear_1.weight")
        if name in tensors
    )
    blocks = {name.split(".")[1] for name in tensors if name.startswith("transformer_blocks.")}
    return {
        "patch_size": hint[2],
        "in_channels": hint[1],
        "out_channels": hint[1],
        "num_layers": len(blocks),
        "attention_head_dim": 64,
        "num_attention_heads": hint[0] // 64,
        "joint_attention_dim": None,
        "caption_projection_dim": hint[0],
        "pooled_projection_dim": pooled,
        "use_pos_embed": False,
        "force_zeros_for_pooled_projection": False,
    }


def _same(name: str, count: int) -> list[tuple[str, str]]:
    return [(f"{name}.{i}", f"{name}.{i}") for i in range(count)]
