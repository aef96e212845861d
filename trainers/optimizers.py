"""Optimisers by name. 8-bit AdamW is bitsandbytes', where that is installed and there is a GPU."""

from __future__ import annotations

from typing import Any

import torch

from engine.errors import SettingsError
from trainers.settings import TrainSettings


class NoEightBit(SettingsError):
    en = "optimizer = adamw8bit does not work here: {reason}. Use adamw, or install it with pip install bitsandbytes."
    zh = "此处无法使用 optimizer = adamw8bit：{reason}。请改用 adamw，或通过 pip install bitsandbytes 安装。"


def make_optimizer(
    settings: TrainSettings, groups: list[dict[str, Any]], device: torch.device
) -> torch.optim.Optimizer:
    """AdamW over parameter groups that bring their own lr."""
    options: dict[str, Any] = {"betas": (0.9, settings.beta2), "weight_decay": settings.weight_decay}
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, fused=device.type in ("cpu", "cuda"), **options)
    if device.type != "cuda":
        raise NoEightBit(reason=f"it needs a CUDA device, and this run is on {device.type}")
    try:
        from bitsandbytes.optim import AdamW8bit  # type: ignore[import-not-found]
    except ImportError as error:
        raise NoEightBit(reason=str(error)) from error
    return AdamW8bit(groups, **options)
