"""What flows along HOOKS and HOOK_KEYFRAMES links: LoRAs for some prompts, at strengths that go with the run.

A hook lies in the entries of a CONDITIONING link and acts on the denoiser while that prompt is evaluated; a Clip may
hold hooks too, for the encoding. What it does is read from its source when a model is there to match it against.
Torch-free at import.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from engine.families.base import Clip, Model
    from engine.families.parts.schedule import Schedule
    from engine.models.manager import Lease, ModelManager, ModelRef
    from engine.weights.adapter_kinds import ModuleChange
    from engine.weights.lora import LoraEntry

Entries = Mapping[Any, Mapping[str, "LoraEntry | ModuleChange"]]  # by part and module


class HookSource(Protocol):
    """Where a hook's matrices come from; a model or a Clip is given, not both."""

    @property
    def key(self) -> str: ...
    @property
    def title(self) -> str: ...

    def refs(self, models: ModelManager, model: Model | None, clip: Clip | None) -> tuple[ModelRef, ...]:
        """What has to be leased for its entries; nothing is read but headers. Raises where it fits neither."""
        ...

    def entries(self, leased: Lease, refs: Sequence[ModelRef], model: Model | None, clip: Clip | None) -> Entries: ...


@dataclass(frozen=True)
class Keyframe:
    """A strength that holds from a part of the way on, until the next one's."""

    strength: float = 1.0
    start_percent: float = 0.0


@dataclass(frozen=True, eq=False)
class Hook:
    source: HookSource
    strength_model: float
    strength_clip: float = 0.0
    keyframes: tuple[Keyframe, ...] = ()

    def at(self, percent: float) -> float:
        """The keyframes' strength at that part of the way. The first one's holds from the beginning."""
        reached = [frame for frame in self.keyframes if frame.start_percent <= percent]
        frame = reached[-1] if reached else next(iter(self.keyframes), Keyframe())
        return frame.strength

    def at_sigma(self, schedule: Schedule, sigma: float) -> float:
        reached = [frame for frame in self.keyframes if schedule.percent_to_sigma(frame.start_percent) >= sigma]
        frame = reached[-1] if reached else next(iter(self.keyframes), Keyframe())
        return frame.strength


Hooks = tuple[Hook, ...]


@dataclass(frozen=True)
class ClipHooks:
    """Of a Clip: what acts while it encodes. to_conds: its prompts hand the hooks on to the denoiser. scheduled: a
    prompt is encoded once for each strength that keyframes give."""

    hooks: Hooks
    to_conds: bool = True
    scheduled: bool = False

    def parts(self) -> list[tuple[float, float, tuple[float, ...]]]:
        """(from, to, strength of each hook on the text encoders) for the way from 0 to 1."""
        starts = {frame.start_percent for hook in self.hooks if hook.strength_clip for frame in hook.keyframes}
        edges = sorted({0.0, *starts} - {1.0}) if self.scheduled else [0.0]
        found: list[tuple[float, float, tuple[float, ...]]] = []
        for start in edges:
            strengths = tuple(hook.strength_clip * hook.at(start) for hook in self.hooks)
            if not found or found[-1][2] != strengths:
                found.append((start, 1.0, strengths))
        ends = [start for start, _, _ in found[1:]] + [1.0]
        return [(start, end, strengths) for (start, _, strengths), end in zip(found, ends, strict=True)]


def combined(*groups: Hooks | None) -> Hooks:
    """Each hook once, in order."""
    return tuple(dict.fromkeys(hook for group in groups for hook in group or ()))


def with_keyframes(hooks: Hooks, keyframes: Sequence[Keyframe]) -> Hooks:
    return tuple(replace(hook, keyframes=tuple(keyframes)) for hook in hooks)


def sorted_frames(*frames: Keyframe) -> tuple[Keyframe, ...]:
    """By their place on the way; of two at one place the later one counts."""
    return tuple(sorted({frame.start_percent: frame for frame in frames}.values(), key=lambda f: f.start_percent))
