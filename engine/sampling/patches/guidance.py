"""Other ways to weigh the prompts: functions of a Guidance (families/parts/patch.py), one paper or practice each.

Estimates are of the clean latent. At cfg 1 the negative prompt is not evaluated: its estimate is then zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from engine.families.parts.patch import Guidance, Patch
from engine.families.parts.schedule import Schedule
from engine.sampling.guiders import perpendicular


def perp_neg(empty: Sequence[Sequence[Any]], neg_scale: float) -> Patch:
    """Perp-Neg (https://arxiv.org/abs/2304.04968) with an empty prompt of its own."""

    def cfg(seen: Guidance) -> Tensor:
        return perpendicular(seen.cond, seen.uncond, seen.ask(empty), neg_scale, seen.cfg)

    return Patch("PerpNeg", cfg=cfg)


def rescale_cfg(multiplier: float) -> Patch:
    """Guidance whose v prediction keeps the deviation of the positive one (https://arxiv.org/abs/2305.08891, 3.4)."""

    def cfg(seen: Guidance) -> Tensor:
        root = math.sqrt(seen.sigma**2 + 1)
        rest = seen.x / root**2

        def v(denoised: Tensor) -> Tensor:
            return (rest - denoised) * (root / seen.sigma)

        cond, uncond = v(seen.cond), v(seen.uncond)
        guided = uncond + (cond - uncond) * seen.cfg
        rescaled = guided * (_deviation(cond) / _deviation(guided))
        return rest - (rescaled * multiplier + guided * (1 - multiplier)) * (seen.sigma / root)

    return Patch("RescaleCFG", cfg=cfg)


def renorm_cfg(cfg_trunc: float, renorm: float) -> Patch:
    """Lumina 2's guidance: none at timesteps from cfg_trunc on, and its result is never longer than `renorm` times the
    positive estimate (0: any length)."""

    def cfg(seen: Guidance) -> Tensor:
        if seen.schedule.timestep(seen.sigma) >= cfg_trunc:
            return seen.cond
        guided = seen.uncond + (seen.cond - seen.uncond) * seen.cfg
        if renorm <= 0:
            return guided
        longest = _length(seen.cond) * renorm
        return guided * (longest / _length(guided).clamp(min=1e-37)).clamp(max=1.0)

    return Patch("RenormCFG", cfg=cfg)


def cfg_zero_star() -> Patch:
    """CFG-Zero* (https://arxiv.org/abs/2503.18886): the unconditional velocity scaled to fit the conditional one."""

    def post(seen: Guidance, denoised: Tensor) -> Tensor:
        positive, negative = seen.x - seen.cond, seen.x - seen.uncond
        scale = _dot(positive, negative) / (_dot(negative, negative) + 1e-8)
        return denoised + seen.uncond * ((scale - 1) * (1 - seen.cfg))

    return Patch("CFGZeroStar", post=post)


def cfg_norm(strength: float) -> Patch:
    """No cell of the guided estimate is longer (over its channels) than that of the positive one."""

    def post(seen: Guidance, denoised: Tensor) -> Tensor:
        longest, length = (torch.linalg.vector_norm(t, dim=1, keepdim=True) for t in (seen.cond, denoised))
        return denoised * (longest / (length + 1e-8)).clamp(0.0, 1.0) * strength

    return Patch("CFGNorm", post=post)


def tangential_damping() -> Patch:
    """TCFG (https://arxiv.org/abs/2503.18137): the unconditional score keeps only its part along the main direction of
    both scores."""

    def pre(seen: Guidance) -> tuple[Tensor, Tensor]:
        if not seen.has_uncond:
            return seen.cond, seen.uncond
        scores = torch.stack([(seen.x - seen.uncond).flatten(1), (seen.x - seen.cond).flatten(1)], dim=1).float()
        main = torch.linalg.svd(scores, full_matrices=False).Vh[:, 0]  # (batch, numbers of a latent)
        along = (scores[:, 0] * main).sum(dim=1, keepdim=True) * main
        return seen.cond, seen.x - along.view_as(seen.x).to(seen.x)

    return Patch("TCFG", pre=pre)


def mahiro() -> Patch:
    """Mahiro: towards the scaled positive estimate where guidance and negative prompt point in different directions."""

    def post(seen: Guidance, denoised: Tensor) -> Tensor:
        leap = seen.cond * seen.cfg
        similarity = cosine_similarity(_root(seen.uncond * seen.cfg), _root((leap + denoised) / 2)).mean()
        weight = 2 * (similarity + 1)
        return (denoised * weight + leap * (4 - weight)) / 4

    return Patch("Mahiro", post=post)


def epsilon_scaling(scaling_factor: float) -> Patch:
    """The predicted noise divided by a factor: against exposure bias (https://arxiv.org/abs/2308.15321)."""

    def post(seen: Guidance, denoised: Tensor) -> Tensor:
        return seen.x - (seen.x - denoised) / scaling_factor

    return Patch("Epsilon Scaling", post=post)


def differential_diffusion(strength: float) -> Patch:
    """Differential Diffusion (https://arxiv.org/abs/2306.00950): a soft mask says from when on each cell is made anew:
    1 from the first step, less from later ones. strength below 1 mixes in the soft mask."""

    def mask(soft: Tensor, schedule: Schedule, sigma: float, sigmas: Sequence[float]) -> Tensor:
        start, end, now = (schedule.timestep(s) for s in (sigmas[0], max(schedule.sigma_min, sigmas[-1]), sigma))
        threshold = (now - end) / (start - end) if start != end else 0.0
        hard = (soft >= threshold).to(soft)
        return soft * (1 - strength) + hard * strength if 0 < strength < 1 else hard

    return Patch("DifferentialDiffusion", mask=mask)


def _deviation(tensor: Tensor) -> Tensor:
    return tensor.std(dim=(1, 2, 3), keepdim=True)


def _length(tensor: Tensor) -> Tensor:
    return torch.linalg.vector_norm(tensor, dim=tuple(range(1, tensor.ndim)), keepdim=True)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=tuple(range(1, a.ndim)), keepdim=True)


def _root(tensor: Tensor) -> Tensor:
    return tensor.abs().sqrt() * tensor.sign()
