"""Guidance at another cfg for each picture of a batch, as models of moving pictures want it for their frames."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.families.parts.patch import Guidance, Patch


def linear_cfg(min_cfg: float) -> Patch:
    """From min_cfg in the first picture to the run's cfg in the last (Stable Video Diffusion, 2311.15127)."""

    def cfg(seen: Guidance) -> Tensor:
        return _guided(seen, torch.linspace(min_cfg, seen.cfg, seen.cond.shape[0]))

    return Patch("VideoLinearCFGGuidance", cfg=cfg)


def triangle_cfg(min_cfg: float) -> Patch:
    """From min_cfg to the run's cfg in the middle and back, as Stable Video 3D (2403.12008) goes around an object."""

    def cfg(seen: Guidance) -> Tensor:
        way = torch.linspace(0, 1, seen.cond.shape[0])
        return _guided(seen, min_cfg + (1 - (2 * way - 1).abs()) * (seen.cfg - min_cfg))

    return Patch("VideoTriangleCFGGuidance", cfg=cfg)


def _guided(seen: Guidance, scales: Tensor) -> Tensor:
    scales = scales.to(seen.cond).reshape(-1, *[1] * (seen.cond.ndim - 1))
    return seen.uncond + (seen.cond - seen.uncond) * scales
