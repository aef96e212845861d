"""Every sampler goes along the sigmas of every scheduler, in the shortest runs as well: to numbers, in one shape."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine.families.parts.schedule import DiscreteSchedule, FlowSchedule, Schedule, scaled_linear_alphas_cumprod
from engine.sampling.noise import brownian_noise, step_noise
from engine.sampling.samplers.table import SAMPLERS
from engine.sampling.schedulers import SCHEDULERS, sigmas_for
from tests.sampling.gaussian import MEAN, STD

SCHEDULES: dict[str, Schedule] = {
    "sd": DiscreteSchedule.from_alphas_cumprod(scaled_linear_alphas_cumprod()),
    "sd3": FlowSchedule(3.0),
    "flux": FlowSchedule.flux(),
}
DISTINCT = {id(sampler): name for name, sampler in reversed(SAMPLERS.items())}.values()  # several names share one


class Best:
    """The best denoiser of normal data for x = alpha * clean + sigma * noise."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        alpha = self.schedule.alpha(sigma)
        return MEAN + (x - alpha * MEAN) * (alpha * STD**2 / ((alpha * STD) ** 2 + sigma**2))

    def with_uncond(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        denoised = self(x, sigma)
        return denoised, denoised * 0.9


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("family", SCHEDULES)
def test_every_sampler_goes_along(family: str, scheduler: str) -> None:
    schedule = SCHEDULES[family]
    drawn = torch.randn(1, 1, 2, 3, generator=torch.Generator().manual_seed(1))
    for name in DISTINCT:
        sampler = SAMPLERS[name]
        for steps, denoise in ((1, 1.0), (2, 0.5), (3, 1.0)):
            sigmas = sigmas_for(schedule, scheduler, steps, denoise=denoise, sampler_name=name)
            assert sigmas == sorted(sigmas, reverse=True) and sigmas[0] > 0, (name, steps, sigmas)
            pure = schedule.is_pure_noise(sigmas[0])
            x = schedule.add_noise(torch.zeros_like(drawn), drawn, sigmas[0], pure=pure)
            noise = brownian_noise(x, sigmas, 2) if sampler.noise == "brownian" else step_noise(x, 2)
            out = sampler.on(schedule)(Best(schedule), x, sigmas, noise=noise)
            assert out.shape == x.shape and bool(out.isfinite().all()), (name, steps)
