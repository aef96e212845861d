"""The noise of Stable Cascade (Stability AI's code, MIT): a cosine in time, its signal to noise ratio shifted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.families.parts.schedule import VarianceExploding, at_or_above

S = 0.008  # https://arxiv.org/abs/2102.09672, eq. 17
LEAST, MOST = 0.0001, 0.9999  # of alpha_cumprod


@dataclass(frozen=True)
class CosineSchedule(VarianceExploding):
    """A model is told the time in 0 .. 1 that has this noise without a shift. A shift s multiplies sigmas by s: more
    noise at the same time, for larger pictures."""

    shift: float = 1.0
    steps: int = 1000

    @property
    def sigmas(self) -> Tensor:
        return torch.tensor([self.sigma(i / self.steps) for i in range(1, self.steps + 1)])

    @property
    def sigma_min(self) -> float:
        return self.sigma(1 / self.steps)

    @property
    def sigma_max(self) -> float:
        return self.sigma(1.0)

    def timestep(self, sigma: float) -> float:
        abar = min(max(1 / (sigma**2 + 1), LEAST), MOST)
        return math.acos(math.sqrt(min(abar * _angle(0.0), 1.0))) / (math.pi / 2) * (1 + S) - S

    def sigma(self, timestep: float) -> float:
        """Of a run at this time: `timestep` is its inverse at shift 1 alone."""
        abar = min(max(_angle(timestep) / _angle(0.0), LEAST), MOST)
        return math.sqrt((1 - abar) / abar) * self.shift

    def percent_to_sigma(self, percent: float) -> float:
        if percent <= 0:
            return math.inf
        return 0.0 if percent >= 1 else self.sigma(1 - percent)

    def is_pure_noise(self, sigma: float) -> bool:
        return at_or_above(sigma, self.sigma_max)


def _angle(time: float) -> float:
    return math.cos((time + S) / (1 + S) * math.pi / 2) ** 2
