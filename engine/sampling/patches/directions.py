"""Guidance whose direction, from the negative to the positive estimate, is changed before it is scaled by cfg."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.families.parts.patch import Guidance, Patch


@dataclass
class _Run:
    """What goes from step to step; made anew when another run begins."""

    sigmas: Sequence[float] = ()
    average: Tensor | None = field(default=None, repr=False)

    def started(self, seen: Guidance) -> None:
        if self.sigmas is not seen.sigmas:
            self.sigmas, self.average = seen.sigmas, None


def adaptive_projected_guidance(eta: float, norm_threshold: float, momentum: float) -> Patch:
    """APG (https://arxiv.org/abs/2410.02416, algorithm 1): cond + (cfg - 1) * direction, where the direction is added
    to `momentum` times the one before (negative values push away from it), is no longer than norm_threshold (0: any
    length), and keeps its part along cond at `eta`."""
    run = _Run()

    def pre(seen: Guidance) -> tuple[Tensor, Tensor]:
        if not seen.has_uncond or seen.cfg == 0:
            return seen.cond, seen.uncond
        run.started(seen)
        direction = seen.cond - seen.uncond
        if momentum:
            direction = direction if run.average is None else direction + run.average * momentum
            run.average = direction
        if norm_threshold > 0:
            direction = direction * (norm_threshold / _length(direction).clamp(min=1e-12)).clamp(max=1.0)
        along = _along(direction, seen.cond)
        direction = direction - along + along * eta
        # so that uncond + cfg * (cond - uncond) of what is given back is the paper's
        return seen.uncond + (seen.cond - seen.uncond + direction * (seen.cfg - 1)) / seen.cfg, seen.uncond

    return Patch("APG", pre=pre)


def frequency_scaling(scale_low: float, scale_high: float, cutoff: int) -> Patch:
    """FreSca (https://arxiv.org/abs/2504.02154): low and high frequencies of the direction are scaled apart."""

    def pre(seen: Guidance) -> tuple[Tensor, Tensor]:
        if not seen.has_uncond:
            return seen.cond, seen.uncond
        return seen.uncond + scaled_bands(seen.cond - seen.uncond, scale_low, scale_high, cutoff), seen.uncond

    return Patch("FreSca", pre=pre)


def scaled_bands(tensor: Tensor, low: float, high: float, cutoff: int) -> Tensor:
    """Frequencies -cutoff .. cutoff - 1 of both axes are low, the rest is high; in float32."""
    spectrum = torch.fft.fft2(tensor.float())
    inside = [_low(size, cutoff, tensor.device) for size in tensor.shape[-2:]]
    mask = torch.where(inside[0][:, None] & inside[1][None, :], low, high)
    return torch.fft.ifft2(spectrum * mask).real.to(tensor)


def _low(size: int, cutoff: int, device: torch.device) -> Tensor:
    numbers = torch.fft.fftfreq(size, 1 / size, device=device).round()
    reach = min(cutoff, size // 2)
    return (numbers >= -reach) & (numbers < reach)


def _length(tensor: Tensor) -> Tensor:
    return torch.linalg.vector_norm(tensor, dim=tuple(range(1, tensor.ndim)), keepdim=True)


def _along(tensor: Tensor, other: Tensor) -> Tensor:
    """The part of a tensor in the direction of another, picture by picture; in float64, as the paper's code."""
    axes = tuple(range(1, tensor.ndim))
    unit = other.double() / _length(other.double()).clamp(min=1e-12)
    return ((tensor.double() * unit).sum(dim=axes, keepdim=True) * unit).to(tensor)
