"""Lists of sigmas: exact values of each scheduler, and the rules of denoise and of the samplers that skip a sigma."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from engine.families.parts.schedule import DiscreteSchedule, scaled_linear_alphas_cumprod
from engine.sampling import names
from engine.sampling.schedulers import SCHEDULERS, sigmas_for
from engine.sampling.sigma_lists import polyexponential_sigmas

SCHEDULE = DiscreteSchedule.from_alphas_cumprod(scaled_linear_alphas_cumprod())
TRAINING = SCHEDULE.sigmas.tolist()


def test_the_names_that_forms_list_are_those_implemented_in_the_same_order() -> None:
    assert tuple(SCHEDULERS) == names.SCHEDULERS


def test_the_sigmas_of_stable_diffusion() -> None:
    assert SCHEDULE.sigma_min == pytest.approx(0.0291675, abs=1e-6)
    assert SCHEDULE.sigma_max == pytest.approx(14.614642, abs=1e-5)


def test_a_timestep_and_its_sigma_are_each_others_inverse() -> None:
    for t in (0, 1, 499, 998, 999):
        assert SCHEDULE.timestep(SCHEDULE.sigma(t)) == t
        assert SCHEDULE.sigma(t) == pytest.approx(TRAINING[t], rel=1e-6)


def test_between_timesteps_sigma_is_a_geometric_mean() -> None:
    assert SCHEDULE.sigma(499.5) == pytest.approx(math.sqrt(TRAINING[499] * TRAINING[500]), rel=1e-6)
    assert SCHEDULE.sigma(-3) == pytest.approx(TRAINING[0])
    assert SCHEDULE.sigma(2000) == pytest.approx(TRAINING[999])


def test_percent_to_sigma_covers_everything_at_its_ends() -> None:
    assert SCHEDULE.percent_to_sigma(0) == math.inf
    assert SCHEDULE.percent_to_sigma(1) == 0
    assert SCHEDULE.percent_to_sigma(0.5) == pytest.approx(SCHEDULE.sigma(499.5))


def test_pure_noise_is_scaled_to_unit_variance_of_the_model_input() -> None:
    latent, noise = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    assert SCHEDULE.is_pure_noise(SCHEDULE.sigma_max)
    assert not SCHEDULE.is_pure_noise(14.0)
    assert float(SCHEDULE.add_noise(latent, noise, 3.0, pure=True)[0, 0, 0, 0]) == pytest.approx(math.sqrt(10))
    assert float(SCHEDULE.add_noise(latent, noise, 3.0)[0, 0, 0, 0]) == 3.0


HIGH, LOW = SCHEDULE.sigma_max, SCHEDULE.sigma_min
EXPECTED = {
    "normal": [SCHEDULE.sigma(t) for t in (999, 666, 333, 0)],
    "sgm_uniform": [SCHEDULE.sigma(t) for t in (999, 749.25, 499.5, 249.75)],
    "simple": [TRAINING[t] for t in (999, 749, 499, 249)],
    "ddim_uniform": [TRAINING[t] for t in (751, 501, 251, 1)],
    "karras": [(HIGH ** (1 / 7) + i / 3 * (LOW ** (1 / 7) - HIGH ** (1 / 7))) ** 7 for i in range(4)],
    "exponential": [HIGH * (LOW / HIGH) ** (i / 3) for i in range(4)],
    # Quantiles 1, 0.75, 0.5, 0.25 of Beta(0.6, 0.6) times 999 are 999, 823.5, 499.5, 175.5 (even ones win ties).
    "beta": [TRAINING[t] for t in (999, 823, 500, 176)],
    # 0, 0.0125, 0.025 of the way linearly in two steps, then quadratic through 0.025 with the same slope to 1.
    "linear_quadratic": [HIGH * (1 - d) for d in (0.0, 0.0125, 0.025, 0.275)],
    "kl_optimal": [math.tan((1 - i / 3) * math.atan(HIGH) + i / 3 * math.atan(LOW)) for i in range(4)],
}


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_four_steps_of_each_scheduler(name: str) -> None:
    sigmas = sigmas_for(SCHEDULE, name, 4)
    assert sigmas[-1] == 0.0
    assert sigmas[:-1] == pytest.approx(EXPECTED[name], rel=2e-6)


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
@pytest.mark.parametrize("steps", [1, 2, 3, 20, 50])
def test_sigmas_fall_to_zero(name: str, steps: int) -> None:
    sigmas = sigmas_for(SCHEDULE, name, steps)
    assert sigmas[-1] == 0.0
    assert all(a > b for a, b in itertools.pairwise(sigmas))
    assert all(type(sigma) is float for sigma in sigmas)


def test_ddim_uniform_may_have_a_step_more() -> None:
    assert len(sigmas_for(SCHEDULE, "ddim_uniform", 30)) == 32


def test_denoise_takes_the_last_steps_of_a_longer_schedule() -> None:
    assert sigmas_for(SCHEDULE, "normal", 4, denoise=0.5) == sigmas_for(SCHEDULE, "normal", 8)[-5:]
    assert sigmas_for(SCHEDULE, "karras", 3, denoise=0.7) == sigmas_for(SCHEDULE, "karras", 4)[-4:]
    assert sigmas_for(SCHEDULE, "karras", 4, denoise=0.99995) == sigmas_for(SCHEDULE, "karras", 4)


def test_denoise_zero_has_no_steps() -> None:
    assert sigmas_for(SCHEDULE, "normal", 4, denoise=0) == []


@pytest.mark.parametrize("sampler_name", ["dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"])
def test_some_samplers_leave_out_the_last_but_one_sigma(sampler_name: str) -> None:
    longer = sigmas_for(SCHEDULE, "karras", 5)
    assert sigmas_for(SCHEDULE, "karras", 4, sampler_name=sampler_name) == [*longer[:4], 0.0]


def test_polyexponential_of_degree_one_is_exponential() -> None:
    assert polyexponential_sigmas(6, 0.03, 14.6) == pytest.approx(
        [14.6 * (0.03 / 14.6) ** (i / 5) for i in range(6)] + [0.0], rel=1e-5
    )
