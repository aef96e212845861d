"""Nodes that act on attention: in tiles, over merged tokens, or with its parts multiplied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

from engine.families.base import TEXT_PARTS, Adapter, Clip, Model
from engine.families.parts.patch import Acting, Patch
from engine.graph.node import CLIP, MODEL, In, NodeContext, Out, node
from engine.nodes.guidance import patched
from engine.nodes.latent import PIXELS_PER_CELL
from engine.sampling.patches.multiply import multiplied
from engine.sampling.patches.tiles import hypertile
from engine.sampling.patches.tome import merge_tokens
from engine.sampling.patches.unet import need_unet
from engine.weights.adapter_kinds import ModuleChange, Scaled

MODEL_OUT = [Out("MODEL")]
EXPERIMENTS = "_for_testing/attention_experiments"
Factor = Annotated[float, In("FLOAT", default=1.0, min=0.0, max=10.0, step=0.01)]


@node("HyperTile", title="HyperTile", title_zh="HyperTile 分块注意力", category="model_patches/unet", outputs=MODEL_OUT)
def hyper_tile(
    ctx: NodeContext,
    model: MODEL,
    tile_size: Annotated[int, In("INT", default=256, min=1, max=2048)],
    swap_size: Annotated[int, In("INT", default=2, min=1, max=128)],
    max_depth: Annotated[int, In("INT", default=0, min=0, max=10)],
    scale_depth: Annotated[bool, In("BOOLEAN", default=False)],
) -> tuple[Model]:
    """Large pictures faster: self-attention within tiles of at least tile_size pixels."""
    acting = hypertile(tile_size // PIXELS_PER_CELL, swap_size, max_depth, scale_depth)
    return (_on_unet(model, "HyperTile", acting),)


@node(
    "TomePatchModel",
    title="TomePatchModel",
    title_zh="合并 Token（ToMe）",
    category="model_patches/unet",
    outputs=MODEL_OUT,
)
def tome_patch_model(
    ctx: NodeContext, model: MODEL, ratio: Annotated[float, In("FLOAT", default=0.3, min=0.0, max=1.0, step=0.01)]
) -> tuple[Model]:
    """Faster by merging that share of the tokens, those most alike, before self-attention."""
    return (_on_unet(model, "TomePatchModel", merge_tokens(ratio)),)


@node(
    "UNetSelfAttentionMultiply",
    title_zh="UNet 自注意力乘数",
    category=EXPERIMENTS,
    outputs=MODEL_OUT,
    experimental=True,
)
def unet_self_attention_multiply(
    ctx: NodeContext, model: MODEL, q: Factor, k: Factor, v: Factor, out: Factor
) -> tuple[Model]:
    return (_on_unet(model, "UNetSelfAttentionMultiply", multiplied(_parts("attn1", q, k, v, out))),)


@node(
    "UNetCrossAttentionMultiply",
    title_zh="UNet 交叉注意力乘数",
    category=EXPERIMENTS,
    outputs=MODEL_OUT,
    experimental=True,
)
def unet_cross_attention_multiply(
    ctx: NodeContext, model: MODEL, q: Factor, k: Factor, v: Factor, out: Factor
) -> tuple[Model]:
    """Of the attention to the prompt."""
    return (_on_unet(model, "UNetCrossAttentionMultiply", multiplied(_parts("attn2", q, k, v, out))),)


@node(
    "UNetTemporalAttentionMultiply",
    title_zh="UNet 时间注意力乘数",
    category=EXPERIMENTS,
    outputs=MODEL_OUT,
    experimental=True,
)
def unet_temporal_attention_multiply(
    ctx: NodeContext,
    model: MODEL,
    self_structural: Factor,
    self_temporal: Factor,
    cross_structural: Factor,
    cross_temporal: Factor,
) -> tuple[Model]:
    """What attention gives, within a picture (structural) and between the frames of a video model (temporal)."""
    name = "UNetTemporalAttentionMultiply"
    within = multiplied({"attn1.to_out.0": self_structural, "attn2.to_out.0": cross_structural}, temporal=False)
    between = multiplied({"attn1.to_out.0": self_temporal, "attn2.to_out.0": cross_temporal}, temporal=True)
    return (_on_unet(_on_unet(model, name, within), name, between),)


@node(
    "CLIPAttentionMultiply", title_zh="CLIP 注意力乘数", category=EXPERIMENTS, outputs=[Out("CLIP")], experimental=True
)
def clip_attention_multiply(ctx: NodeContext, clip: CLIP, q: Factor, k: Factor, v: Factor, out: Factor) -> tuple[Clip]:
    """The weights and biases of a CLIP's attention, multiplied; a T5 beside it stays as it is."""
    given: Clip = clip
    factors = {"q_proj": q, "k_proj": k, "v_proj": v, "out_proj": out}
    added: list[Adapter] = []
    for part, modules in zip(TEXT_PARTS, given.modules, strict=False):
        entries = {name: _scaled(factors[name.rpartition(".")[2]]) for name in modules if _attention(name, factors)}
        if entries:
            added.append(Adapter(f"multiply {q} {k} {v} {out}", "CLIPAttentionMultiply", 1.0, entries, part))
    return (replace(given, adapters=(*given.adapters, *added)),)


def _attention(name: str, factors: Mapping[str, float]) -> bool:
    layer, _, last = name.rpartition(".")
    return layer.endswith(".self_attn") and factors.get(last, 1.0) != 1.0


def _scaled(factor: float) -> ModuleChange:
    return ModuleChange((Scaled(factor),), (Scaled(factor),))


def _parts(layer: str, q: float, k: float, v: float, out: float) -> dict[str, float]:
    return {f"{layer}.to_q": q, f"{layer}.to_k": k, f"{layer}.to_v": v, f"{layer}.to_out.0": out}


def _on_unet(model: Model, name: str, acting: Acting) -> Model:
    need_unet(model, name)
    return patched(model, Patch(name, acting=acting))
