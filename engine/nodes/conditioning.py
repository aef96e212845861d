"""Nodes that turn prompts into conditioning."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Annotated, Any

import torch

from engine.families.base import TEXT_PARTS, Adapter, Clip, Part, Prompt, TextBatch
from engine.families.parts.adapters import acting
from engine.families.parts.hook import Hook
from engine.graph.limits import MAX_SIDE
from engine.graph.node import CLIP, CONDITIONING, In, NodeContext, Out, node

WORKING = 64 << 20  # bytes that a few chunks of a prompt need


@node(
    "CLIPTextEncode",
    title="CLIP Text Encode (Prompt)",
    title_zh="CLIP 文本编码（提示词）",
    category="conditioning",
    outputs=[Out("CONDITIONING", tooltip="A conditioning containing the embedded text used to guide the model.")],
)
def clip_text_encode(
    ctx: NodeContext,
    text: Annotated[str, In("STRING", multiline=True, dynamic_prompts=True, tooltip="The text to be encoded.")],
    clip: Annotated[Clip, In("CLIP", tooltip="The CLIP model used for encoding the text.")],
) -> tuple[list[list[Any]]]:
    return (conditioned(ctx, clip, text),)


@node(
    "CLIPSetLastLayer",
    title="CLIP Set Last Layer",
    title_zh="设置 CLIP 最后一层",
    category="conditioning",
    outputs=[Out("CLIP")],
)
def clip_set_last_layer(
    ctx: NodeContext, clip: CLIP, stop_at_clip_layer: Annotated[int, In("INT", default=-1, min=-24, max=-1, step=1)]
) -> tuple[Clip]:
    """-1 is the last layer, -2 the one before ("CLIP skip 2")."""
    return (replace(clip, stop_at_layer=stop_at_clip_layer),)


def conditioned(ctx: NodeContext, clip: Clip, text: Prompt, **options: Any) -> list[list[Any]]:
    """A CONDITIONING link of one prompt: one entry, or one for each part of the way in which hooks have other strengths
    on the text encoders."""
    if clip.hooks is None:
        return conditioning_of(encoded(ctx, clip, text), **options)
    entries: list[list[Any]] = []
    more = {"hooks": clip.hooks.hooks} if clip.hooks.to_conds else {}
    for start, end, strengths in clip.hooks.parts():
        part = {"clip_start_percent": start, "clip_end_percent": end} if (start, end) != (0.0, 1.0) else {}
        batch = encoded(ctx, clip, text, list(zip(clip.hooks.hooks, strengths, strict=True)))
        entries += conditioning_of(batch, **options, **more, **part)
    return entries


def encoded(ctx: NodeContext, clip: Clip, text: Prompt, hooks: Sequence[tuple[Hook, float]] = ()) -> TextBatch:
    """A prompt through the text encoders, LoRAs and hooks at their strengths beside them, in float32 on the CPU."""
    acting_hooks = [(hook.source, strength) for hook, strength in hooks if strength]
    refs = [source.refs(ctx.models, None, clip) for source, _ in acting_hooks]
    everything = (*clip.refs, *(ref for some in refs for ref in some))
    unpacking = max((ctx.models.unpacking(ref) for ref in clip.refs), default=0)
    with ctx.models.lease(*everything, working=WORKING + unpacking) as leased, torch.no_grad(), ExitStack() as stack:
        modules = [leased[ref] for ref in clip.refs]
        adapters = list(clip.adapters)
        for (source, strength), own in zip(acting_hooks, refs, strict=True):
            entries = source.entries(leased, own, None, clip)
            parts: list[Part] = [part for part in TEXT_PARTS if entries.get(part)]
            adapters += [Adapter(source.key, source.title, strength, entries[part], part) for part in parts]
        for module, part in zip(modules, TEXT_PARTS, strict=False):
            stack.enter_context(acting(module, [adapter for adapter in adapters if adapter.part == part]))
        batch = clip.family.encode_prompt(modules, clip, text)
        pooled = None if batch.pooled is None else batch.pooled.float().cpu()
        return TextBatch(batch.cross.float().cpu(), pooled, {name: t.cpu() for name, t in batch.extra.items()})


def conditioning_of(batch: TextBatch, **options: Any) -> list[list[Any]]:
    """A CONDITIONING link of one prompt; `options` are what samplers are to know of it."""
    pooled = {} if batch.pooled is None else {"pooled_output": batch.pooled}
    return [[batch.cross, {**pooled, **batch.extra, **options}]]


@node(
    "CLIPTextEncodeControlnet",
    title="CLIPTextEncodeControlnet",
    title_zh="CLIP 文本编码（ControlNet）",
    category="_for_testing/conditioning",
    outputs=[Out("CONDITIONING")],
    experimental=True,
)
def clip_text_encode_controlnet(
    ctx: NodeContext,
    clip: CLIP,
    conditioning: CONDITIONING,
    text: Annotated[str, In("STRING", multiline=True, dynamic_prompts=True)],
) -> tuple[list[list[Any]]]:
    """ControlNets that act on these prompts are told another one."""
    batch = encoded(ctx, clip, text)
    told = {"cross_attn_controlnet": batch.cross, "pooled_output_controlnet": batch.pooled}
    return ([[cross, {**options, **told}] for cross, options in conditioning],)


Pixels = Annotated[int, In("INT", default=1024, min=0, max=MAX_SIDE)]
Offset = Annotated[int, In("INT", default=0, min=0, max=MAX_SIDE)]


@node(
    "CLIPTextEncodeSDXL",
    title="CLIPTextEncodeSDXL",
    title_zh="CLIP 文本编码（SDXL）",
    category="advanced/conditioning",
    outputs=[Out("CONDITIONING")],
)
def clip_text_encode_sdxl(
    ctx: NodeContext,
    clip: CLIP,
    width: Pixels,
    height: Pixels,
    crop_w: Offset,
    crop_h: Offset,
    target_width: Pixels,
    target_height: Pixels,
    text_g: Annotated[str, In("STRING", multiline=True, dynamic_prompts=True)],
    text_l: Annotated[str, In("STRING", multiline=True, dynamic_prompts=True)],
) -> tuple[list[list[Any]]]:
    """A text for each of SDXL's encoders, and the sizes that its UNet is told."""
    sizes = {"width": width, "height": height, "crop_w": crop_w, "crop_h": crop_h}
    sizes |= {"target_width": target_width, "target_height": target_height}
    return (conditioned(ctx, clip, {"g": text_g, "l": text_l}, **sizes),)


@node(
    "CLIPTextEncodeSDXLRefiner",
    title="CLIPTextEncodeSDXLRefiner",
    title_zh="CLIP 文本编码（SDXL 精修）",
    category="advanced/conditioning",
    outputs=[Out("CONDITIONING")],
)
def clip_text_encode_sdxl_refiner(
    ctx: NodeContext,
    ascore: Annotated[float, In("FLOAT", default=6.0, min=0.0, max=1000.0, step=0.01)],
    width: Pixels,
    height: Pixels,
    text: Annotated[str, In("STRING", multiline=True, dynamic_prompts=True)],
    clip: CLIP,
) -> tuple[list[list[Any]]]:
    """ascore: how good the picture is to look; the negative prompt asks for less than the positive one."""
    return (conditioned(ctx, clip, text, aesthetic_score=ascore, width=width, height=height),)
