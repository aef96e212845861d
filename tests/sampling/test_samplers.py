"""Samplers on a Gaussian model, whose exact solution is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from engine.errors import Cancelled
from engine.families.parts.schedule import DiscreteSchedule, scaled_linear_alphas_cumprod
from engine.sampling import names
from engine.sampling.denoiser import Step
from engine.sampling.noise import brownian_noise, step_noise
from engine.sampling.samplers.multistep import lagrange_integrals
from engine.sampling.samplers.table import SAMPLERS

from .gaussian import MEAN, STD, Gaussian, no_noise, solution, start

SCHEDULE = DiscreteSchedule.from_alphas_cumprod(scaled_linear_alphas_cumprod())


def test_the_names_that_forms_list_are_those_implemented_in_the_same_order() -> None:
    assert tuple(SAMPLERS) == names.SAMPLERS


def log_spaced(steps: int, high: float = 10.0, low: float = 0.05) -> list[float]:
    return torch.logspace(math.log10(high), math.log10(low), steps + 1, dtype=torch.float64).tolist()


def error(name: str, steps: int) -> float:
    sigmas = log_spaced(steps)
    x = start(sigmas[0])
    out = SAMPLERS[name].function(Gaussian(), x, sigmas, noise=no_noise)
    return float((out - solution(x, sigmas[0], sigmas[-1])).abs().max())


ORDERS = {
    "euler": 1, "heunpp2": 1, "gradient_estimation": 1, "heun": 2, "dpm_2": 2, "dpmpp_2m": 2, "ipndm": 2,
    "res_multistep": 2, "uni_pc": 2, "uni_pc_bh2": 2, "deis": 2.75, "ipndm_v": 2.75, "lms": 3,
}  # fmt: skip


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_halving_the_steps_divides_the_error_by_two_to_the_order(name: str, order: float) -> None:
    observed = math.log2(error(name, 80) / error(name, 160))
    assert observed > order - 0.25


@pytest.mark.parametrize(
    ("name", "without_noise", "order"),
    [
        ("seeds_2", {"eta": 0.0}, 2),
        ("seeds_3", {"eta": 0.0}, 3),
        ("dpmpp_sde", {"eta": 0.0}, 2),
        ("dpmpp_3m_sde", {"eta": 0.0}, 2),
        ("sa_solver", {"tau": 0.0}, 4),
        ("sa_solver_pece", {"tau": 0.0}, 4),
    ],
)
def test_the_order_of_an_sde_sampler_shows_without_its_noise(
    name: str, without_noise: dict[str, float], order: float
) -> None:
    def error(steps: int) -> float:
        sigmas = log_spaced(steps)
        x = start(sigmas[0])

        def zero(sigma: float, sigma_next: float) -> Tensor:
            return torch.zeros_like(x)

        out = SAMPLERS[name].function(Gaussian(), x, sigmas, noise=zero, **without_noise)
        return float((out - solution(x, sigmas[0], sigmas[-1])).abs().max())

    assert math.log2(error(80) / error(160)) > order - 0.25


@pytest.mark.parametrize("name", ["euler", "heun", "dpm_2", "lms", "dpmpp_2m", "ddim", "uni_pc"])
def test_a_deterministic_sampler_reaches_the_solution_and_asks_for_no_noise(name: str) -> None:
    sigmas = [*log_spaced(60, 14.6, 0.03), 0.0]
    x = start(sigmas[0])
    out = SAMPLERS[name].function(Gaussian(), x, sigmas, noise=no_noise)
    assert float((out - solution(x, sigmas[0])).abs().max()) < 0.1


# Consistency sampling is exact only for a model that predicts the end of the ODE, not the mean of what it may be;
# the other mixes estimates of two sigmas.
@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"lcm", "dpmpp_2s_ancestral_cfg_pp"}))
def test_samples_have_the_mean_and_deviation_of_the_data(name: str) -> None:
    sigmas = [*log_spaced(40, 14.6, 0.03), 0.0]
    x = MEAN + torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(1)) * math.hypot(STD, sigmas[0])
    sampler = SAMPLERS[name]
    noise = brownian_noise(x, sigmas, 2) if sampler.noise == "brownian" else step_noise(x, 2)
    out = sampler.function(Gaussian(), x, sigmas, noise=noise, **sampler.options(SCHEDULE))
    assert float(out.mean()) == pytest.approx(MEAN, abs=0.04)
    assert float(out.std()) == pytest.approx(STD, abs=0.1)


@pytest.mark.parametrize(
    ("name", "evaluations"),
    [
        ("euler", 6),
        ("euler_ancestral", 6),
        ("heun", 11),
        ("dpm_2", 11),
        ("dpmpp_2m", 6),
        ("dpmpp_2m_sde", 6),
        ("dpmpp_3m_sde", 6),
        ("lms", 6),
        ("ddim", 6),
        ("lcm", 6),
        ("uni_pc", 6),
        ("dpmpp_sde", 11),
    ],
)
def test_evaluations_per_step(name: str, evaluations: int) -> None:
    sigmas = [*log_spaced(5), 0.0]
    x, model, sampler = start(sigmas[0]), Gaussian(), SAMPLERS[name]
    noise = brownian_noise(x, sigmas, 2) if sampler.noise == "brownian" else step_noise(x, 2)
    sampler.function(model, x, sigmas, noise=noise)
    assert model.evaluations == evaluations


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"dpm_adaptive", "dpm_fast"}))
def test_the_callback_sees_every_step_once_and_in_order(name: str) -> None:
    sigmas = [*log_spaced(4), 0.0]
    x, sampler = start(sigmas[0]), SAMPLERS[name]
    noise = brownian_noise(x, sigmas, 2) if sampler.noise == "brownian" else step_noise(x, 2)
    seen: list[Step] = []
    sampler.function(Gaussian(), x, sigmas, noise=noise, callback=seen.append, **sampler.options(SCHEDULE))
    assert [(step.index, step.total) for step in seen] == [(i, 5) for i in range(5)]


@pytest.mark.parametrize("name", sorted(set(SAMPLERS)))
def test_an_interrupt_in_the_callback_ends_the_run_at_once(name: str) -> None:
    sigmas = [*log_spaced(4), 0.0]
    x, model, sampler = start(sigmas[0]), Gaussian(), SAMPLERS[name]

    def interrupt(step: Step) -> None:
        raise Cancelled

    noise = brownian_noise(x, sigmas, 2) if sampler.noise == "brownian" else step_noise(x, 2)
    with pytest.raises(Cancelled):
        sampler.function(model, x, sigmas, noise=noise, callback=interrupt, **sampler.options(SCHEDULE))
    assert model.evaluations == 1


@pytest.mark.parametrize("name", sorted(set(SAMPLERS)))
def test_one_step_gives_the_estimate_of_the_clean_latent(name: str) -> None:
    if name in {"dpm_fast", "dpm_adaptive", "uni_pc", "uni_pc_bh2"}:
        pytest.skip("ends at a sigma above 0")
    x, sampler = start(10.0), SAMPLERS[name]

    def noise(sigma: float, sigma_next: float) -> Tensor:
        return torch.zeros_like(x)

    out = sampler.function(Gaussian(), x, [10.0, 0.0], noise=noise, **sampler.options(SCHEDULE))
    assert torch.allclose(out, Gaussian()(x, 10.0))


def test_ancestral_noise_keeps_the_variance_of_the_next_sigma() -> None:
    from engine.sampling.samplers.euler import ancestral_step

    down, up = ancestral_step(4.0, 3.0, 1.0)
    assert math.hypot(down, up) == pytest.approx(3.0)
    assert up == pytest.approx(3.0 * math.sqrt(16 - 9) / 4)
    assert ancestral_step(4.0, 3.0, 0.0) == (3.0, 0.0)


def test_eta_zero_makes_an_sde_sampler_deterministic() -> None:
    sigmas = [*log_spaced(20), 0.0]
    x = start(sigmas[0])
    out = SAMPLERS["dpmpp_2m_sde"].function(Gaussian(), x, sigmas, noise=no_noise, eta=0.0)
    assert float((out - SAMPLERS["dpmpp_2m"].function(Gaussian(), x, sigmas, noise=no_noise)).abs().max()) < 0.01


def test_an_adaptive_run_that_accepts_no_step_ends() -> None:
    with pytest.raises(ArithmeticError, match="no step of 100 was accepted"):
        SAMPLERS["dpm_adaptive"].having(accept_safety=100.0).on(SCHEDULE)(
            Gaussian(), start(10.0), [10.0, 1.0, 0.0], noise=no_noise
        )


def test_lagrange_weights_integrate_polynomials_exactly() -> None:
    nodes = [3.0, 4.0, 6.0, 9.0]
    weights = lagrange_integrals(nodes, 3.0, 2.5)
    assert sum(w * t**3 for w, t in zip(weights, nodes, strict=True)) == pytest.approx((2.5**4 - 3.0**4) / 4)
    assert lagrange_integrals([3.0], 3.0, 2.5) == [-0.5]
