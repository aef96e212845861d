"""accelerate, for what it is good at here: precision, accumulation, clipping and the fp16 scaler of one run.

It never sees the base model: that is shared, and preparing it would move it and patch its forward. accelerate's state
is global to the process; a run brings its own and puts back what was there, so that runs of different precision follow
each other, or one inside the other, in one worker.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

from engine.errors import SettingsError

Precision = Literal["auto", "no", "fp16", "bf16"]


class NoHalfPrecision(SettingsError):
    en = "mixed_precision = {precision} does not work on {device}. Use {instead}."
    zh = "{device} 不支持 mixed_precision = {precision}。请使用 {instead}。"


class NoFullPrecision(SettingsError):
    en = "mixed_precision = no needs a base model in 32 bits, but on {device} it is held as {dtype}. Use auto or bf16."
    zh = "mixed_precision = no 需要 32 位的基础模型，但在 {device} 上它以 {dtype} 保存。请使用 auto 或 bf16。"


def resolve(precision: Precision, base: torch.dtype, device: torch.device) -> Literal["no", "fp16", "bf16"]:
    """What accelerate is told. The base is shared and stays in its type; gradients through 16 bits need autocast.

    Raises NoHalfPrecision, NoFullPrecision.
    """
    if precision == "auto":
        if device.type != "cuda" or base == torch.float32:
            return "no"
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if precision == "fp16" and device.type != "cuda":
        raise NoHalfPrecision(precision=precision, device=device.type, instead="auto or bf16")
    if precision == "no" and device.type == "cuda" and base != torch.float32:
        raise NoFullPrecision(device=device.type, dtype=str(base).removeprefix("torch."))
    return precision


@contextmanager
def accelerator(
    precision: Literal["no", "fp16", "bf16"], accumulation: int, device: torch.device
) -> Iterator[Accelerator]:
    """An Accelerator with a state of its own, for the length of the block."""
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
