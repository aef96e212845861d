"""What samplers need to know of flow models, x = (1 - sigma) * clean + sigma * noise: their loops are the same.

Solvers of the ODE need nothing: its slope is (x - denoised) / sigma here as well. Those that add noise are given the
flow's step down and back up, or run over the ratio of noise to signal, where alpha is 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from engine.families.parts.schedule import Schedule
from engine.sampling.denoiser import Callback, GuidedDenoiser, NoiseSource, Step, silent
from engine.sampling.samplers.euler import geometric_mean

# Pure noise has no signal to noise ratio: a run in that ratio starts where this part of the way is done.
FIRST_PERCENT = 1e-4
# The middle of a step from pure noise, for the same reason.
NEAR_ONE = 0.9999
# A schedule's arithmetic may miss 1 by that much: the tangent of the arc tangent of 1 is just below it.
ROUNDING = 1e-6


def flow_step(sigma: float, sigma_next: float, eta: float) -> tuple[float, float, float]:
    """(sigma_down, scale, sigma_up): step down to sigma_down, multiply by scale, add noise of sigma_up: that is
    sigma_next again. eta 1 steps down by the square of sigma_next / sigma, eta 0 has no noise."""
    down = sigma_next * (1 + (sigma_next / sigma - 1) * eta)
    scale = (1 - sigma_next) / (1 - down)
    return down, scale, math.sqrt(max(sigma_next**2 - (down * scale) ** 2, 0.0))


def flow_middle(sigma: float, down: float) -> float:
    """The sigma halfway in the log signal to noise ratio."""
    if sigma >= 1:
        return NEAR_ONE
    ratio = geometric_mean(_ratio(sigma), _ratio(down))
    return ratio / (1 + ratio)


def ancestral_options(schedule: Schedule) -> dict[str, Any]:
    """What samplers that step down and add noise are told for models of that schedule."""
    return {"ancestral": flow_step} if schedule.is_flow else {}


def halfway_options(schedule: Schedule) -> dict[str, Any]:
    """Those, for samplers that also ask halfway."""
    return {"ancestral": flow_step, "middle": flow_middle} if schedule.is_flow else {}


def exploding(sample: Callable[..., Tensor], schedule: Schedule) -> Callable[..., Tensor]:
    """A sampler for x = clean + sigma * noise, run on a flow model.

    y = x / (1 - sigma) is clean + noise * sigma / (1 - sigma): the sampler sees y and that ratio, and what it calls
    sees x and sigma.
    """

    def run(
        denoiser: GuidedDenoiser,
        x: Tensor,
        sigmas: Sequence[float],
        *,
        callback: Callback = silent,
        noise: NoiseSource,
        **options: Any,
    ) -> Tensor:
        first = schedule.percent_to_sigma(FIRST_PERCENT) if sigmas[0] > 1 - ROUNDING else sigmas[0]
        own = [first, *sigmas[1:]]
        ratios = [_ratio(sigma) for sigma in own]
        exact = dict(zip(ratios, own, strict=True))

        def sigma_of(ratio: float) -> float:
            return exact.get(ratio, ratio / (1 + ratio))

        def shown(step: Step) -> None:
            sigma = sigma_of(step.sigma)
            callback(Step(step.index, step.total, sigma, step.x * (1 - sigma), step.denoised))

        def between(ratio: float, ratio_next: float) -> Tensor:
            return noise(sigma_of(ratio), sigma_of(ratio_next))

        y = sample(_Ratios(denoiser, sigma_of), x / (1 - first), ratios, callback=shown, noise=between, **options)
        return y * (1 - own[-1])

    return run


class _Ratios:
    """A GuidedDenoiser of y and sigma / (1 - sigma)."""

    def __init__(self, denoiser: GuidedDenoiser, sigma_of: Callable[[float], float]) -> None:
        self.denoiser = denoiser
        self.sigma_of = sigma_of

    def __call__(self, y: Tensor, ratio: float) -> Tensor:
        sigma = self.sigma_of(ratio)
        return self.denoiser(y * (1 - sigma), sigma)

    def with_uncond(self, y: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
        sigma = self.sigma_of(ratio)
        return self.denoiser.with_uncond(y * (1 - sigma), sigma)


def _ratio(sigma: float) -> float:
    return sigma / (1 - sigma)
