"""Hooks while a picture is made: their adapters act beside the module for those calls that want them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from engine.families.base import Adapter, Model
from engine.families.parts.adapters import acting, made_bytes
from engine.families.parts.hook import Hook, Hooks, combined
from engine.families.parts.schedule import Schedule
from engine.models.manager import ModelManager
from engine.weights.lora import LoraEntry

PLAIN = (torch.float32, torch.bfloat16, torch.float16)


def hooks_of(sides: Sequence[Sequence[Sequence[Any]]]) -> Hooks:
    """Every hook of CONDITIONING links, each once."""
    return combined(*(options.get("hooks") for side in sides for _, options in side))


class ActingHooks:
    """Called with the hooks of a call of the model and its sigma, it lets those act and no others. What acts already
    stays as it is."""

    def __init__(self, models: ModelManager, model: Model, module: nn.Module, schedule: Schedule) -> None:
        self._models = models
        self._model = model
        self._module = module
        self._schedule = schedule
        self._adapters: dict[Hook, Adapter] = {}
        self._now: list[tuple[Hook, float]] = []
        self._acting = ExitStack()
        self._leases = ExitStack()

    def __call__(self, hooks: Hooks, sigma: float) -> None:
        strengths = [(hook, hook.strength_model * hook.at_sigma(self._schedule, sigma)) for hook in hooks]
        wanted = [(hook, strength) for hook, strength in strengths if strength]
        if wanted != self._now:
            self._stop()
            adapters = [replace(self._adapter(hook), strength=strength) for hook, strength in wanted]
            self._acting.enter_context(acting(self._module, adapters))
            self._now = wanted

    def prepare(self, hooks: Hooks) -> None:
        """Reads them, so that one which does not fit is told before the first step."""
        for hook in hooks:
            self._adapter(hook)

    def close(self) -> None:
        self._stop()
        self._leases.close()

    def _stop(self) -> None:
        self._now = []
        self._acting.close()

    def _adapter(self, hook: Hook) -> Adapter:
        if hook not in self._adapters:
            source = hook.source
            refs = source.refs(self._models, self._model, None)
            leased = self._leases.enter_context(self._models.lease(*refs))
            entries = source.entries(leased, refs, self._model, None).get("denoiser", {})
            adapter = Adapter(source.key, source.title, 1.0, {name: self._placed(entries[name]) for name in entries})
            made = made_bytes([adapter], self._model.modules)
            self._leases.enter_context(self._models.lease(working=made))
            self._adapters[hook] = adapter
        return self._adapters[hook]

    def _placed(self, entry: Any) -> Any:
        """A pair where the module is, once for the run instead of at every change of hooks."""
        like = next(iter(self._module.parameters()), None)
        if not isinstance(entry, LoraEntry) or like is None or like.dtype not in PLAIN:
            return entry
        mid = None if entry.mid is None else entry.mid.to(like)
        return replace(entry, down=entry.down.to(like), up=entry.up.to(like), mid=mid)


@contextmanager
def acting_hooks(
    models: ModelManager, model: Model, module: nn.Module, schedule: Schedule, hooks: Hooks
) -> Iterator[ActingHooks]:
    beside = ActingHooks(models, model, module, schedule)
    try:
        beside.prepare(hooks)
        yield beside
    finally:
        beside.close()
