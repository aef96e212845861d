"""Models made of two others. Nothing is read here: the merge is made when it first runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

from engine.families.base import TEXT_PARTS, Clip, Model
from engine.families.parts.merging import Half, Mix, blend, difference, merged, total
from engine.graph.node import CLIP, MODEL, In, NodeContext, Out, node

CATEGORY = "advanced/model_merging"
MODEL_OUT, CLIP_OUT = (Out("MODEL"),), (Out("CLIP"),)
Ratio = Annotated[float, In("FLOAT", default=1.0, min=0.0, max=1.0, step=0.01)]
Multiplier = Annotated[float, In("FLOAT", default=1.0, min=-10.0, max=10.0, step=0.01)]


@node("ModelMergeSimple", title="ModelMergeSimple", title_zh="模型合并（简单）", category=CATEGORY, outputs=MODEL_OUT)
def model_merge_simple(ctx: NodeContext, model1: MODEL, model2: MODEL, ratio: Ratio) -> tuple[Model]:
    """`ratio` of the first, the rest of the second."""
    return (merged_models(ctx, model1, model2, blend(ratio)),)


@node("ModelMergeBlocks", title="ModelMergeBlocks", title_zh="模型合并（分块）", category=CATEGORY, outputs=MODEL_OUT)
def model_merge_blocks(
    ctx: NodeContext, model1: MODEL, model2: MODEL, input: Ratio, middle: Ratio, out: Ratio
) -> tuple[Model]:
    """A ratio for each part of a UNet; layers of none of them, and models that are no UNets, go by `input`."""
    shares = {"input": input, "middle": middle, "out": out}
    return (merged_models(ctx, model1, model2, by_prefix(model1, shares)),)


@node("ModelMergeAdd", title="ModelMergeAdd", title_zh="模型合并（相加）", category=CATEGORY, outputs=MODEL_OUT)
def model_merge_add(ctx: NodeContext, model1: MODEL, model2: MODEL) -> tuple[Model]:
    return (merged_models(ctx, model1, model2, total()),)


@node(
    "ModelMergeSubtract",
    title="ModelMergeSubtract",
    title_zh="模型合并（相减）",
    category=CATEGORY,
    outputs=MODEL_OUT,
)
def model_merge_subtract(ctx: NodeContext, model1: MODEL, model2: MODEL, multiplier: Multiplier) -> tuple[Model]:
    return (merged_models(ctx, model1, model2, difference(multiplier)),)


@node("CLIPMergeSimple", title="CLIPMergeSimple", title_zh="CLIP 合并（简单）", category=CATEGORY, outputs=CLIP_OUT)
def clip_merge_simple(ctx: NodeContext, clip1: CLIP, clip2: CLIP, ratio: Ratio) -> tuple[Clip]:
    return (_clips(ctx, clip1, clip2, blend(ratio)),)


@node("CLIPMergeAdd", title="CLIPMergeAdd", title_zh="CLIP 合并（相加）", category=CATEGORY, outputs=CLIP_OUT)
def clip_merge_add(ctx: NodeContext, clip1: CLIP, clip2: CLIP) -> tuple[Clip]:
    return (_clips(ctx, clip1, clip2, total()),)


@node(
    "CLIPMergeSubtract",
    title="CLIPMergeSubtract",
    title_zh="CLIP 合并（相减）",
    category=CATEGORY,
    outputs=CLIP_OUT,
)
def clip_merge_subtract(ctx: NodeContext, clip1: CLIP, clip2: CLIP, multiplier: Multiplier) -> tuple[Clip]:
    return (_clips(ctx, clip1, clip2, difference(multiplier)),)


def by_prefix(model: Model, shares: Mapping[str, float]) -> Mix:
    """A ratio for each layer by how its name begins in the files of the model's maker, the longest beginning first;
    the first ratio where none fits."""
    layout = model.family.layout(model)
    fused = {piece.module: layer for layer, pieces in layout.fused.items() for piece in pieces}
    usual = next(iter(shares.values()))

    def share(name: str) -> tuple[float, float]:
        layer = fused.get(name.rpartition(".")[0])
        known = layer or layout.plain.to_ldm(name) or name
        ratio = shares[max((p for p in shares if known.startswith(p)), key=len, default=next(iter(shares)))]
        return ratio, 1.0 - ratio

    if len(set(shares.values())) == 1:
        return blend(usual)
    return Mix(f"by prefix {sorted(shares.items())}", share)


def merged_models(ctx: NodeContext, first: Model, second: Model, mix: Mix) -> Model:
    """What else the first is (patches, schedule) stays."""
    halves = [Half(model.ref, model.modules, model.adapters) for model in (first, second)]
    ref, adapters = merged(ctx.models, halves[0], halves[1], mix)
    return replace(first, ref=ref, adapters=adapters)


def _clips(ctx: NodeContext, first: Clip, second: Clip, mix: Mix) -> Clip:
    """Encoder by encoder, by their names. One that the second does not have stays as it is."""
    others = {name: i for i, name in enumerate(second.names)}
    refs, adapters = list(first.refs), []
    for i, name in enumerate(first.names):
        own = _encoder(first, i)
        if name not in others:
            adapters += own.adapters
            continue
        refs[i], acting = merged(ctx.models, own, _encoder(second, others[name]), mix)
        adapters += [replace(adapter, part=TEXT_PARTS[i]) for adapter in acting]
    return replace(first, refs=tuple(refs), adapters=tuple(adapters))


def _encoder(clip: Clip, index: int) -> Half:
    part = TEXT_PARTS[index]
    return Half(clip.refs[index], clip.modules[index], tuple(a for a in clip.adapters if a.part == part))
