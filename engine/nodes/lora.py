"""Nodes that put LoRAs beside models. Weights stay as they are: a LoRA acts while a model runs."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Annotated, Any

from engine.families.base import TEXT_PARTS, Adapter, Clip, LiveLora, Model, Part
from engine.families.parts.hook import Entries
from engine.families.parts.hook_sources import lora_ref
from engine.graph.node import CLIP, MODEL, In, Models, NodeContext, Out, node
from engine.nodes.loaders import file_digest
from engine.weights.load import open_header
from engine.weights.lora import LoraFile

log = logging.getLogger(__name__)
PARTLY_USED = "{name}: {count} of its {all} tensors fit nothing in {model}, such as '{first}'. The rest is used."
PARTLY_USED_ZH = "{name}：{all} 个张量中有 {count} 个与 {model} 的任何部分都不匹配，例如“{first}”。其余部分已使用。"

LoraName = Annotated[str, In(Models("loras"), tooltip="The name of the LoRA.")]


def _strength(tooltip: str) -> In:
    return In("FLOAT", default=1.0, min=-100.0, max=100.0, step=0.01, tooltip=tooltip)


StrengthModel = Annotated[float, _strength("How strongly to modify the diffusion model. This value can be negative.")]
StrengthClip = Annotated[float, _strength("How strongly to modify the CLIP model. This value can be negative.")]


def lora_digest(ctx: NodeContext, lora_name: str | None) -> Any:
    live = ctx.live.get(lora_name) if lora_name is not None else None
    return live.key if isinstance(live, LiveLora) else file_digest(ctx, "loras", lora_name)


@node(
    "LoraLoader",
    title="Load LoRA (Model and CLIP)",
    title_zh="加载 LoRA（模型和 CLIP）",
    category="loaders",
    outputs=[Out("MODEL"), Out("CLIP")],
    fingerprint=lora_digest,
)
def lora_loader(
    ctx: NodeContext,
    model: MODEL,
    clip: CLIP,
    lora_name: LoraName,
    strength_model: StrengthModel,
    strength_clip: StrengthClip,
) -> tuple[Model, Clip]:
    """Several of these in a row stack."""
    if strength_model == 0.0 and strength_clip == 0.0:
        return model, clip
    key, entries = _entries(ctx, lora_name, model, clip)
    return _with(model, key, lora_name, strength_model, entries), _with(clip, key, lora_name, strength_clip, entries)


@node(
    "LoraLoaderModelOnly",
    title="Load LoRA (Model only)",
    title_zh="加载 LoRA（仅模型）",
    category="loaders",
    outputs=[Out("MODEL")],
    fingerprint=lora_digest,
)
def lora_loader_model_only(
    ctx: NodeContext, model: MODEL, lora_name: LoraName, strength_model: StrengthModel
) -> tuple[Model]:
    if strength_model == 0.0:
        return (model,)
    key, entries = _entries(ctx, lora_name, model, None)
    return (_with(model, key, lora_name, strength_model, entries),)


def _entries(ctx: NodeContext, name: str, model: Model, clip: Clip | None) -> tuple[str, Entries]:
    """The LoRA of that name, matched to the models: one under training, or a file, which is read once for all nodes."""
    live = ctx.live.get(name)
    if isinstance(live, LiveLora):
        return live.key, live.entries
    path = ctx.workspace.model_path("loras", name)
    allow_pickle = ctx.workspace.allow_pickle
    header = open_header(path, allow_pickle=allow_pickle)
    ref = lora_ref(ctx.models, header, name, model, clip, allow_pickle=allow_pickle)
    with ctx.models.lease(ref) as leased:
        lora: LoraFile = leased[ref]
    if lora.unmatched:
        told = {"name": name, "count": len(lora.unmatched), "all": len(header.tensors), "first": lora.unmatched[0]}
        told["model"] = model.ref.title
        log.warning(PARTLY_USED.format(**told))
        ctx.warn(PARTLY_USED.format(**told), PARTLY_USED_ZH.format(**told))
    return header.digest, lora.entries


def _with(link: Any, key: str, name: str, strength: float, entries: Entries) -> Any:
    parts: tuple[Part, ...] = ("denoiser",) if isinstance(link, Model) else TEXT_PARTS[: len(link.refs)]
    added = tuple(Adapter(key, name, strength, entries[part], part) for part in parts if entries.get(part))
    return replace(link, adapters=(*link.adapters, *added)) if added and strength != 0.0 else link
