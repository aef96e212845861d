"""accelerate, for what it is good at here: precision, accumulation, clipping and the fp16 scaler of one run.

It never sees the base model: that is shared, and preparing it would move it and patch its forward. accelerate's state
is global to the process; a run brings its own and puts back what was there, so that runs of different precision follow
each other, or one inside the other, in one worker.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

from engine.errors import SettingsError


class NoHalfPrecision(SettingsError):
    en = "mixed_precision = {precision} does not work on {device}. Use {instead}."
    zh = "{device} 不支持 mixed_precision = {precision}。请使用 {instead}。"


@contextmanager
def accelerator(precision: str, accumulation: int, device: torch.device) -> Iterator[Accelerator]:
    """An Accelerator with a state of its own, for the length of the block."""
    if precision == "fp16" and device.type != "cuda":
        raise NoHalfPrecision(precision=precision, device=device.type, instead="bf16 or no")
    shared = [kind._shared_state for kind in (AcceleratorState, GradientState, PartialState)]
    before = [dict(state) for state in shared]
    for state in shared:
        state.clear()
    try:
        yield Accelerator(
            mixed_precision=precision,
            gradient_accumulation_steps=accumulation,
            cpu=device.type == "cpu",
            device_placement=False,
        )
    finally:
        for state, old in zip(shared, before, strict=True):
            state.clear()
            state.update(old)
