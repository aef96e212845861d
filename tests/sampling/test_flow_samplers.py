"""Samplers on a Gaussian flow, whose exact solution is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from engine.families.parts.schedule import DiscreteSchedule, FlowSchedule, Schedule, scaled_linear_alphas_cumprod
from engine.sampling.denoiser import Step
from engine.sampling.noise import brownian_noise, step_noise
from engine.sampling.samplers.flow import flow_step
from engine.sampling.samplers.table import SAMPLERS
from engine.sampling.schedulers import SCHEDULERS, sigmas_for
from tests.sampling.gaussian import MEAN, STD

SCHEDULE = FlowSchedule(1.5, 1000.0)


class GaussianFlow:
    """The best denoiser of x = (1 - sigma) * clean + sigma * noise, clean normal with MEAN and STD."""

    def __init__(self) -> None:
        self.sigmas: list[float] = []

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.sigmas.append(sigma)
        alpha = 1 - sigma
        return MEAN + (x - alpha * MEAN) * (alpha * STD**2 / spread(sigma) ** 2)

    def with_uncond(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        denoised = self(x, sigma)
        return denoised, denoised


def spread(sigma: float) -> float:
    return math.sqrt(((1 - sigma) * STD) ** 2 + sigma**2)


def solution(x: Tensor, sigma: float, sigma_end: float) -> Tensor:
    """Where the probability flow takes x."""
    return (1 - sigma_end) * MEAN + (x - (1 - sigma) * MEAN) * (spread(sigma_end) / spread(sigma))


def start(sigma: float) -> Tensor:
    return (1 - sigma) * MEAN + torch.linspace(-2, 2, 8, dtype=torch.float64).reshape(1, 1, 1, 8) * spread(sigma)


def zero(sigma: float, sigma_next: float) -> Tensor:
    return torch.zeros(1, dtype=torch.float64)


WITHOUT_NOISE = {
    "euler": {}, "heun": {}, "dpmpp_2m": {}, "euler_ancestral": {"eta": 0.0}, "dpm_2_ancestral": {"eta": 0.0},
    "dpmpp_2s_ancestral": {"eta": 0.0}, "dpmpp_sde": {"eta": 0.0}, "dpmpp_2m_sde": {"eta": 0.0},
    "dpmpp_2m_sde_heun": {"eta": 0.0}, "dpmpp_3m_sde": {"eta": 0.0}, "seeds_2": {"eta": 0.0}, "seeds_3": {"eta": 0.0},
    "sa_solver": {"tau": 0.0}, "sa_solver_pece": {"tau": 0.0}, "er_sde": {"s_noise": 0.0, "power": 1.0},
    "euler_cfg_pp": {}, "euler_ancestral_cfg_pp": {"eta": 0.0},
}  # fmt: skip


@pytest.mark.parametrize(("name", "options"), WITHOUT_NOISE.items())
def test_without_its_noise_a_sampler_reaches_the_solution(name: str, options: dict[str, float]) -> None:
    sigmas = torch.linspace(0.95, 0.05, 101, dtype=torch.float64).tolist()
    x = start(sigmas[0])
    out = SAMPLERS[name].having(**options).on(SCHEDULE)(GaussianFlow(), x, sigmas, noise=zero)
    first_order = name in ("euler", "euler_ancestral", "euler_cfg_pp", "euler_ancestral_cfg_pp")
    error = float((out - solution(x, sigmas[0], sigmas[-1])).abs().max())
    assert error < (3e-2 if first_order else 1e-2)


# DDPM's and UniPC's formulas are those of the other scale; consistency sampling wants a model that predicts the end.
@pytest.mark.parametrize(
    "name",
    [
        "euler", "euler_ancestral", "euler_cfg_pp", "euler_ancestral_cfg_pp", "heun", "dpm_2", "dpm_2_ancestral", "lms",
        "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_2m_sde_heun", "dpmpp_3m_sde", "ipndm",
        "ipndm_v", "deis", "res_multistep", "gradient_estimation", "er_sde", "seeds_2", "seeds_3", "sa_solver",
        "sa_solver_pece", "ddim",
    ],
)  # fmt: skip
def test_samples_of_pure_noise_have_the_mean_and_deviation_of_the_data(name: str) -> None:
    sigmas = sigmas_for(SCHEDULE, "simple", 40)
    assert sigmas[0] == 1.0
    x = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(1))
    sampler = SAMPLERS[name]
    noise = brownian_noise(x, sigmas, 2) if sampler.noise == "brownian" else step_noise(x, 2)
    seen: list[Step] = []
    out = sampler.on(SCHEDULE)(GaussianFlow(), x, sigmas, noise=noise, callback=seen.append)
    assert float(out.mean()) == pytest.approx(MEAN, abs=0.04)
    assert float(out.std()) == pytest.approx(STD, abs=0.1)
    assert [step.index for step in seen] == list(range(40))
    assert all(0 < step.sigma <= 1 and bool(step.x.isfinite().all()) for step in seen)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("sigma", "sigma_next"), [(1.0, 0.8), (0.6, 0.3), (0.2, 0.01)])
def test_a_step_down_and_noise_back_up_keep_the_mixture(sigma: float, sigma_next: float, eta: float) -> None:
    down, scale, up = flow_step(sigma, sigma_next, eta)
    assert scale * (1 - down) == pytest.approx(1 - sigma_next)
    assert math.hypot(scale * down, up) == pytest.approx(sigma_next)
    assert (up < 1e-6) == (eta == 0)


def test_consistency_steps_mix_as_the_schedule_says() -> None:
    class Constant(GaussianFlow):
        def __call__(self, x: Tensor, sigma: float) -> Tensor:
            return torch.full_like(x, 2.0)

    seen: list[Step] = []
    noise = torch.ones(1, 1, 2, 2)
    out = SAMPLERS["lcm"].on(SCHEDULE)(
        Constant(), noise, [1.0, 0.25, 0.0], noise=lambda a, b: noise, callback=seen.append
    )
    assert seen[1].x.eq(2.0 * 0.75 + 0.25).all() and out.eq(2.0).all()


def test_the_model_is_asked_at_sigmas_of_the_flow_and_the_noise_as_well() -> None:
    sigmas, asked = [1.0, 0.7, 0.4, 0.0], []

    def noise(sigma: float, sigma_next: float) -> Tensor:
        asked.append((sigma, sigma_next))
        return torch.zeros(1)

    model = GaussianFlow()
    SAMPLERS["dpmpp_2m_sde"].on(SCHEDULE)(model, torch.randn(1, 4, 8, 8), sigmas, noise=noise)
    first = SCHEDULE.percent_to_sigma(1e-4)
    assert model.sigmas == [first, 0.7, 0.4] and asked == [(first, 0.7), (0.7, 0.4)]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("schedule", [SCHEDULE, FlowSchedule.flux()])
def test_every_scheduler_falls_from_one_to_zero(scheduler: str, schedule: FlowSchedule) -> None:
    sigmas = sigmas_for(schedule, scheduler, 20)
    assert sigmas == sorted(sigmas, reverse=True) and sigmas[-1] == 0 and 0.9 < sigmas[0] <= 1.0
    assert len(sigmas) in (21, 22)


@pytest.mark.parametrize("name", ["euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral"])
@pytest.mark.parametrize("schedule", [SCHEDULE, DiscreteSchedule.from_alphas_cumprod(scaled_linear_alphas_cumprod())])
def test_an_eta_that_leaves_no_way_down_still_makes_numbers(name: str, schedule: Schedule) -> None:
    sigmas = sigmas_for(schedule, "simple", 4)
    x = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    out = SAMPLERS[name].having(eta=20.0).on(schedule)(GaussianFlow(), x, sigmas, noise=step_noise(x, 2))
    assert bool(out.isfinite().all())
