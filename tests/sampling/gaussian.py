"""A model whose exact solution is known: clean latents are normal with mean MEAN and deviation STD.

The best denoiser is linear in x, and the probability flow ODE ends where x stood in standard deviations at the start.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MEAN, STD = 0.3, 0.7


class Gaussian:
    """Counts its evaluations."""

    def __init__(self) -> None:
        self.evaluations = 0

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.evaluations += 1
        return MEAN + (x - MEAN) * (STD**2 / (STD**2 + sigma**2))

    def with_uncond(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        denoised = self(x, sigma)
        return denoised, denoised


def start(sigma: float, count: int = 8) -> Tensor:
    """Evenly spaced points of the distribution at sigma, in float64 so that only the method's error shows."""
    z = torch.linspace(-2, 2, count, dtype=torch.float64).reshape(1, 1, 1, count)
    return MEAN + z * math.sqrt(STD**2 + sigma**2)


def solution(x: Tensor, sigma: float, sigma_end: float = 0.0) -> Tensor:
    """Where the probability flow ODE takes x from sigma to sigma_end."""
    return MEAN + (x - MEAN) * math.sqrt((STD**2 + sigma_end**2) / (STD**2 + sigma**2))


def no_noise(sigma: float, sigma_next: float) -> Tensor:
    raise AssertionError("a deterministic sampler asked for noise")
