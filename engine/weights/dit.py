"""Layouts of the diffusion transformers: BFL's Flux.1 and Stability's SD3 / 3.5 <-> diffusers' modules, and configs
from shapes. Torch-free. It knows layouts, not files or families.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from engine.weights.fused import FusedMap, Piece, halves_swapped, pieces
from engine.weights.header import TensorInfo
from engine.weights.keymaps import Config, KeyMap, UnknownLayout

_QKV = ("to_q", "to_k", "to_v")
_ADDED_QKV = ("add_q_proj", "add_k_proj", "add_v_proj")


def flux_map(config: Config) -> FusedMap:
    """`double_blocks / single_blocks` -> FluxTransformer2DModel of this config."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    plain = [
        ("img_in", "x_embedder"),
        ("txt_in", "context_embedder"),
        *_embedder("time_in", "timestep_embedder"),
        *_embedder("guidance_in", "guidance_embedder"),
        *_embedder("vector_in", "text_embedder"),
        ("final_layer.linear", "proj_out"),
    ]
    fused: dict[str, tuple[Piece, ...]] = {"final_layer.adaLN_modulation.1": halves_swapped("norm_out.linear", width)}
    for i in range(config["num_layers"]):
        old, new = f"double_blocks.{i}", f"transformer_blocks.{i}"
        for stream, norm, projections, out, query, key, ff in (
            ("img", "norm1", _QKV, "to_out.0", "norm_q", "norm_k", "ff"),
            ("txt", "norm1_context", _ADDED_QKV, "to_add_out", "norm_added_q", "norm_added_k", "ff_context"),
        ):
            fused[f"{old}.{stream}_attn.qkv"] = pieces((f"{new}.attn.{name}" for name in projections), (width,) * 3)
            plain += [
                (f"{old}.{stream}_mod.lin", f"{new}.{norm}.linear"),
                (f"{old}.{stream}_attn.proj", f"{new}.attn.{out}"),
                *_scale(f"{old}.{stream}_attn.norm.query_norm", f"{new}.attn.{query}"),
                *_scale(f"{old}.{stream}_attn.norm.key_norm", f"{new}.attn.{key}"),
                (f"{old}.{stream}_mlp.0", f"{new}.{ff}.net.0.proj"),
                (f"{old}.{stream}_mlp.2", f"{new}.{ff}.net.2"),
            ]
    for i in range(config["num_single_layers"]):
        old, new = f"single_blocks.{i}", f"single_transformer_blocks.{i}"
        names = (*(f"{new}.attn.{name}" for name in _QKV), f"{new}.proj_mlp")
        fused[f"{old}.linear1"] = pieces(names, (width, width, width, 4 * width))
        plain += [
            (f"{old}.linear2", f"{new}.proj_out"),
            (f"{old}.modulation.lin", f"{new}.norm.linear"),
            *_scale(f"{old}.norm.query_norm", f"{new}.attn.norm_q"),
            *_scale(f"{old}.norm.key_norm", f"{new}.attn.norm_k"),
        ]
    return FusedMap(KeyMap(tuple(plain)), fused)


def sd3_map(config: Config) -> FusedMap:
    """`joint_blocks` -> SD3Transformer2DModel of this config. The last block's text side ends after its attention."""
    width, last = config["num_attention_heads"] * config["attention_head_dim"], config["num_layers"] - 1
    plain = [
        ("pos_embed", "pos_embed.pos_embed"),
        ("x_embedder.proj", "pos_embed.proj"),
        ("context_embedder", "context_embedder"),
        ("t_embedder.mlp.0", "time_text_embed.timestep_embedder.linear_1"),
        ("t_embedder.mlp.2", "time_text_embed.timestep_embedder.linear_2"),
        ("y_embedder.mlp.0", "time_text_embed.text_embedder.linear_1"),
        ("y_embedder.mlp.2", "time_text_embed.text_embedder.linear_2"),
        ("final_layer.linear", "proj_out"),
    ]
    fused: dict[str, tuple[Piece, ...]] = {"final_layer.adaLN_modulation.1": halves_swapped("norm_out.linear", width)}
    for i in range(last + 1):
        old, new = f"joint_blocks.{i}", f"transformer_blocks.{i}"
        for side, projections, attention in (
            ("x_block.attn", _QKV, f"{new}.attn"),
            ("x_block.attn2", _QKV, f"{new}.attn2"),
            ("context_block.attn", _ADDED_QKV, f"{new}.attn"),
        ):
            added = "added_" if projections is _ADDED_QKV else ""
            fused[f"{old}.{side}.qkv"] = pieces((f"{attention}.{name}" for name in projections), (width,) * 3)
            plain += [
                (f"{old}.{side}.proj", f"{attention}.{'to_add_out' if added else 'to_out.0'}"),
                (f"{old}.{side}.ln_q", f"{attention}.norm_{added}q"),
                (f"{old}.{side}.ln_k", f"{attention}.norm_{added}k"),
            ]
        for side, ff in (("x_block", "ff"), ("context_block", "ff_context")):
            plain += [
                (f"{old}.{side}.mlp.fc1", f"{new}.{ff}.net.0.proj"),
                (f"{old}.{side}.mlp.fc2", f"{new}.{ff}.net.2"),
            ]
        plain.append((f"{old}.x_block.adaLN_modulation.1", f"{new}.norm1.linear"))
        context = f"{old}.context_block.adaLN_modulation.1"
        if i == last:
            fused[context] = halves_swapped(f"{new}.norm1_context.linear", width)
        else:
            plain.append((context, f"{new}.norm1_context.linear"))
    return FusedMap(KeyMap(tuple(plain)), fused)


def flux_config(tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """What the shapes of a Flux in BFL's or diffusers' names say of its config. Raises UnknownLayout."""
    ours = "x_embedder.weight" in tensors
    names = (
        {
            "image": "x_embedder.weight",
            "text": "context_embedder.weight",
            "pooled": "time_text_embed.text_embedder.linear_1.weight",
            "head": "transformer_blocks.0.attn.norm_q.weight",
            "out": "proj_out.weight",
        }
        if ours
        else {
            "image": "img_in.weight",
            "text": "txt_in.weight",
            "pooled": "vector_in.in_layer.weight",
            "head": _first(tensors, "double_blocks.0.img_attn.norm.query_norm.scale",
                           "double_blocks.0.img_attn.norm.query_norm.weight"),
            "out": "final_layer.linear.weight",
        }
    )  # fmt: skip
    shapes = {what: _shape(tensors, name, "Flux transformer") for what, name in names.items()}
    width, head = shapes["image"][0], shapes["head"][0]
    double, single = ("transformer_blocks", "single_transformer_blocks") if ours else ("double_blocks", "single_blocks")
    guidance = "time_text_embed.guidance_embedder.linear_1.weight" if ours else "guidance_in.in_layer.weight"
    return {
        "in_channels": shapes["image"][1],
        "out_channels": shapes["out"][0],
        "num_layers": _blocks(tensors, double),
        "num_single_layers": _blocks(tensors, single),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": shapes["text"][1],
        "pooled_projection_dim": shapes["pooled"][1],
        "guidance_embeds": guidance in tensors,
        "axes_dims_rope": (head // 8, head * 7 // 16, head * 7 // 16),
    }


def sd3_config(tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """What the shapes of an SD3 in Stability's or diffusers' names say of its config. Raises UnknownLayout."""
    ours = "transformer_blocks.0.attn.add_q_proj.weight" in tensors
    what = "SD3 transformer"
    patch = _shape(tensors, "pos_embed.proj.weight" if ours else "x_embedder.proj.weight", what)
    positions = _shape(tensors, "pos_embed.pos_embed" if ours else "pos_embed", what)
    out = _shape(tensors, "proj_out.weight" if ours else "final_layer.linear.weight", what)
    text = _shape(tensors, "context_embedder.weight", what)
    pooled = _shape(
        tensors, "time_text_embed.text_embedder.linear_1.weight" if ours else "y_embedder.mlp.0.weight", what
    )
    block, attention, normed = (
        ("transformer_blocks", "attn2.to_q", "attn.norm_q")
        if ours
        else ("joint_blocks", "x_block.attn2.qkv", "x_block.attn.ln_q")
    )
    layers = _blocks(tensors, block)
    norm = f"{block}.0.{normed}.weight"
    head = (
        tensors[norm].shape[0] if norm in tensors else 64
    )  # Stability's depth: as many heads of 64 as there are blocks
    side = int(positions[1] ** 0.5)
    return {
        "sample_size": side * patch[2],
        "patch_size": patch[2],
        "in_channels": patch[1],
        "out_channels": out[0] // patch[2] ** 2,
        "num_layers": layers,
        "attention_head_dim": head,
        "num_attention_heads": patch[0] // head,
        "joint_attention_dim": text[1],
        "caption_projection_dim": text[0],
        "pooled_projection_dim": pooled[1],
        "pos_embed_max_size": side,
        "dual_attention_layers": tuple(i for i in range(layers) if f"{block}.{i}.{attention}.weight" in tensors),
        "qk_norm": "rms_norm" if norm in tensors else None,
    }


def _embedder(old: str, new: str) -> Iterator[tuple[str, str]]:
    yield f"{old}.in_layer", f"time_text_embed.{new}.linear_1"
    yield f"{old}.out_layer", f"time_text_embed.{new}.linear_2"


def _scale(old: str, new: str) -> Iterator[tuple[str, str]]:
    """A norm's only tensor: BFL calls it scale, some conversions weight."""
    yield f"{old}.scale", f"{new}.weight"
    yield f"{old}.weight", f"{new}.weight"


def _blocks(tensors: Mapping[str, TensorInfo], name: str) -> int:
    return 1 + max((int(k.split(".")[1]) for k in tensors if k.startswith(f"{name}.")), default=-1)


def _first(tensors: Mapping[str, TensorInfo], *names: str) -> str:
    return next((name for name in names if name in tensors), names[0])


def _shape(tensors: Mapping[str, TensorInfo], name: str, what: str) -> tuple[int, ...]:
    if name not in tensors:
        raise UnknownLayout(what=what, reason=f"{name} is missing")
    return tensors[name].shape
