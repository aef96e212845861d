"""Nodes for LoRAs that act while some prompts are evaluated only, at strengths that go with the run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any

from engine.families.base import Clip, LiveLora
from engine.families.parts.hook import (
    ClipHooks,
    Hook,
    Hooks,
    HookSource,
    Keyframe,
    combined,
    sorted_frames,
    with_keyframes,
)
from engine.families.parts.hook_sources import CheckpointSource, LiveSource, LoraSource
from engine.graph.node import CLIP, In, Models, NodeContext, Out, node
from engine.nodes.loaders import file_digest
from engine.nodes.lora import lora_digest

log = logging.getLogger(__name__)
HOOKS = [Out("HOOKS")]
FRAMES = [Out("HOOK_KEYFRAMES", "HOOK_KF")]
CREATE, COMBINE, SCHEDULE = (f"advanced/hooks/{kind}" for kind in ("create", "combine", "scheduling"))

LoraName = Annotated[str, In(Models("loras"))]
CheckpointName = Annotated[str, In(Models("checkpoints"))]
Strength = Annotated[float, In("FLOAT", default=1.0, min=-20.0, max=20.0, step=0.01)]
Percent = Annotated[float, In("FLOAT", default=0.0, min=0.0, max=1.0, step=0.001)]
EndPercent = Annotated[float, In("FLOAT", default=1.0, min=0.0, max=1.0, step=0.001)]
Between = Annotated[float, In("FLOAT", default=1.0, min=0.0, max=10.0, step=0.001)]
OptionalHooks = Annotated[Hooks | None, In("HOOKS")]
Frames = tuple[Keyframe, ...]
OptionalFrames = Annotated[Frames | None, In("HOOK_KEYFRAMES")]
Told = Annotated[bool, In("BOOLEAN", default=False)]

EASINGS: dict[str, Callable[[float], float]] = {
    "linear": lambda t: t,
    "ease_in": lambda t: t**2,
    "ease_out": lambda t: 1 - (1 - t) ** 2,
    "ease_in_out": lambda t: 3 * t**2 - 2 * t**3,
}


def _checkpoint_digest(ctx: NodeContext, ckpt_name: str | None) -> Any:
    return file_digest(ctx, "checkpoints", ckpt_name)


@node(
    "CreateHookLora",
    title="Create Hook LoRA",
    title_zh="创建 Hook LoRA",
    category=CREATE,
    outputs=HOOKS,
    fingerprint=lora_digest,
)
def create_hook_lora(
    ctx: NodeContext,
    lora_name: LoraName,
    strength_model: Strength,
    strength_clip: Strength,
    prev_hooks: OptionalHooks = None,
) -> tuple[Hooks]:
    """A LoRA for those prompts that it is given to (Cond Set Props), and for the text encoders (Set CLIP Hooks)."""
    return (_created(_lora(ctx, lora_name), strength_model, strength_clip, prev_hooks),)


@node(
    "CreateHookLoraModelOnly",
    title="Create Hook LoRA (MO)",
    title_zh="创建 Hook LoRA（仅模型）",
    category=CREATE,
    outputs=HOOKS,
    fingerprint=lora_digest,
)
def create_hook_lora_model_only(
    ctx: NodeContext, lora_name: LoraName, strength_model: Strength, prev_hooks: OptionalHooks = None
) -> tuple[Hooks]:
    return (_created(_lora(ctx, lora_name), strength_model, 0.0, prev_hooks),)


@node(
    "CreateHookModelAsLora",
    title="Create Hook Model as LoRA",
    title_zh="创建 Hook（模型作为 LoRA）",
    category=CREATE,
    outputs=HOOKS,
    fingerprint=_checkpoint_digest,
)
def create_hook_model_as_lora(
    ctx: NodeContext,
    ckpt_name: CheckpointName,
    strength_model: Strength,
    strength_clip: Strength,
    prev_hooks: OptionalHooks = None,
) -> tuple[Hooks]:
    """At strength 1 those prompts are evaluated by the checkpoint, below by a model between the two."""
    return (_created(_checkpoint(ctx, ckpt_name), strength_model, strength_clip, prev_hooks),)


@node(
    "CreateHookModelAsLoraModelOnly",
    title="Create Hook Model as LoRA (MO)",
    title_zh="创建 Hook（模型作为 LoRA，仅模型）",
    category=CREATE,
    outputs=HOOKS,
    fingerprint=_checkpoint_digest,
)
def create_hook_model_as_lora_model_only(
    ctx: NodeContext, ckpt_name: CheckpointName, strength_model: Strength, prev_hooks: OptionalHooks = None
) -> tuple[Hooks]:
    return (_created(_checkpoint(ctx, ckpt_name), strength_model, 0.0, prev_hooks),)


def _lora(ctx: NodeContext, name: str) -> HookSource:
    live = ctx.live.get(name)
    if isinstance(live, LiveLora):
        return LiveSource(live, name)
    return LoraSource(ctx.workspace.model_path("loras", name), name, ctx.workspace.allow_pickle)


def _checkpoint(ctx: NodeContext, name: str) -> HookSource:
    path = ctx.workspace.model_path("checkpoints", name)
    return CheckpointSource(path, name, ctx.workspace.model_roots("embeddings"), ctx.workspace.allow_pickle)


def _created(source: HookSource, strength_model: float, strength_clip: float, before: Hooks | None) -> Hooks:
    if strength_model == 0 and strength_clip == 0:
        return before or ()
    return combined(before, (Hook(source, strength_model, strength_clip),))


@node("CombineHooks2", title="Combine Hooks [2]", title_zh="合并 Hooks [2]", category=COMBINE, outputs=HOOKS)
def combine_hooks_2(ctx: NodeContext, hooks_A: OptionalHooks = None, hooks_B: OptionalHooks = None) -> tuple[Hooks]:
    return (combined(hooks_A, hooks_B),)


@node("CombineHooks4", title="Combine Hooks [4]", title_zh="合并 Hooks [4]", category=COMBINE, outputs=HOOKS)
def combine_hooks_4(
    ctx: NodeContext,
    hooks_A: OptionalHooks = None,
    hooks_B: OptionalHooks = None,
    hooks_C: OptionalHooks = None,
    hooks_D: OptionalHooks = None,
) -> tuple[Hooks]:
    return (combined(hooks_A, hooks_B, hooks_C, hooks_D),)


@node("CombineHooks8", title="Combine Hooks [8]", title_zh="合并 Hooks [8]", category=COMBINE, outputs=HOOKS)
def combine_hooks_8(
    ctx: NodeContext,
    hooks_A: OptionalHooks = None,
    hooks_B: OptionalHooks = None,
    hooks_C: OptionalHooks = None,
    hooks_D: OptionalHooks = None,
    hooks_E: OptionalHooks = None,
    hooks_F: OptionalHooks = None,
    hooks_G: OptionalHooks = None,
    hooks_H: OptionalHooks = None,
) -> tuple[Hooks]:
    return (combined(hooks_A, hooks_B, hooks_C, hooks_D, hooks_E, hooks_F, hooks_G, hooks_H),)


@node("SetHookKeyframes", title="Set Hook Keyframes", title_zh="设置 Hook 关键帧", category=SCHEDULE, outputs=HOOKS)
def set_hook_keyframes(
    ctx: NodeContext, hooks: Annotated[Hooks, In("HOOKS")], hook_kf: OptionalFrames = None
) -> tuple[Hooks]:
    """Their strengths are multiplied by the keyframe's that was passed last; the first one's holds before it too."""
    return (hooks if hook_kf is None else with_keyframes(hooks, hook_kf),)


@node(
    "CreateHookKeyframe", title="Create Hook Keyframe", title_zh="创建 Hook 关键帧", category=SCHEDULE, outputs=FRAMES
)
def create_hook_keyframe(
    ctx: NodeContext, strength_mult: Strength, start_percent: Percent, prev_hook_kf: OptionalFrames = None
) -> tuple[Frames]:
    return (sorted_frames(*(prev_hook_kf or ()), Keyframe(strength_mult, start_percent)),)


@node(
    "CreateHookKeyframesInterpolated",
    title="Create Hook Keyframes Interp.",
    title_zh="创建 Hook 关键帧（插值）",
    category=SCHEDULE,
    outputs=FRAMES,
)
def create_hook_keyframes_interpolated(
    ctx: NodeContext,
    strength_start: Between,
    strength_end: Between,
    interpolation: Annotated[str, In(list(EASINGS))],
    start_percent: Percent,
    end_percent: EndPercent,
    keyframes_count: Annotated[int, In("INT", default=5, min=2, max=100, step=1)],
    print_keyframes: Told,
    prev_hook_kf: OptionalFrames = None,
) -> tuple[Frames]:
    """Evenly spread over a part of the way."""
    shares = [EASINGS[interpolation](i / (keyframes_count - 1)) for i in range(keyframes_count)]
    strengths = [strength_start + (strength_end - strength_start) * share for share in shares]
    return (_spread(strengths, start_percent, end_percent, prev_hook_kf, print_keyframes),)


@node(
    "CreateHookKeyframesFromFloats",
    title="Create Hook Keyframes From Floats",
    title_zh="创建 Hook 关键帧（从浮点数）",
    category=SCHEDULE,
    outputs=FRAMES,
)
def create_hook_keyframes_from_floats(
    ctx: NodeContext,
    floats_strength: Annotated[
        float | Sequence[float], In("FLOATS", default=-1, min=-1, step=0.001, extra={"forceInput": True})
    ],
    start_percent: Percent,
    end_percent: EndPercent,
    print_keyframes: Told,
    prev_hook_kf: OptionalFrames = None,
) -> tuple[Frames]:
    """A number, or a list of them, as node packs make it."""
    floats = [floats_strength] if isinstance(floats_strength, int | float) else list(floats_strength)
    return (_spread([float(f) for f in floats], start_percent, end_percent, prev_hook_kf, print_keyframes),)


def _spread(strengths: Sequence[float], start: float, end: float, before: Frames | None, told: bool) -> Frames:
    step = (end - start) / max(1, len(strengths) - 1)
    frames = [Keyframe(strength, start + step * i) for i, strength in enumerate(strengths)]
    if told:
        log.info("keyframes: %s", ", ".join(f"{frame.strength:.4g} from {frame.start_percent:.1%}" for frame in frames))
    return sorted_frames(*(before or ()), *frames)


@node(
    "SetClipHooks",
    title="Set CLIP Hooks",
    title_zh="设置 CLIP Hooks",
    category="advanced/hooks/clip",
    outputs=[Out("CLIP")],
)
def set_clip_hooks(
    ctx: NodeContext,
    clip: CLIP,
    apply_to_conds: Annotated[bool, In("BOOLEAN", default=True)],
    schedule_clip: Annotated[bool, In("BOOLEAN", default=False)],
    hooks: OptionalHooks = None,
) -> tuple[Clip]:
    """apply_to_conds: prompts of this CLIP have the hooks as well. schedule_clip: they are encoded once for each
    strength of the keyframes, instead of with the first one's."""
    return (replace(clip, hooks=ClipHooks(hooks, apply_to_conds, schedule_clip) if hooks else None),)
