"""Schedules and predictions: exact values, inverses, and that each prediction's two functions fit together."""

from __future__ import annotations

import math

import pytest
import torch

from engine.families.parts.schedule import (
    ContinuousSchedule,
    DiscreteSchedule,
    FlowSchedule,
    Schedule,
    scaled_linear_alphas_cumprod,
    zero_terminal_snr,
)
from engine.sampling.prediction import PREDICTIONS

SD = DiscreteSchedule.from_alphas_cumprod(scaled_linear_alphas_cumprod())
ZSNR = DiscreteSchedule.from_alphas_cumprod(zero_terminal_snr(scaled_linear_alphas_cumprod()))
SCHEDULES: dict[str, Schedule] = {
    "sd": SD,
    "lcm": SD.distilled(),
    "zsnr": ZSNR,
    "edm": ContinuousSchedule(0.002, 120.0),
    "v": ContinuousSchedule(0.03, 500.0, "v"),
    "cosmos": ContinuousSchedule(0.002, 80.0, "flow"),
    "sd3": FlowSchedule(3.0),
    "aura": FlowSchedule(1.73, 1.0),
    "flux": FlowSchedule.flux(1.15),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_timestep_and_its_sigma_are_each_others_inverse(name: str) -> None:
    schedule = SCHEDULES[name]
    assert schedule.sigmas.diff().gt(0).all()
    assert float(schedule.sigmas[0]) == pytest.approx(schedule.sigma_min)
    assert float(schedule.sigmas[-1]) == pytest.approx(schedule.sigma_max)
    for sigma in schedule.sigmas[:: len(schedule.sigmas) // 7].tolist():
        if isinstance(schedule, FlowSchedule):  # it is told sigma itself, which has its shift already
            assert schedule.timestep(sigma) == pytest.approx(sigma * schedule.multiplier)
        else:
            assert schedule.sigma(schedule.timestep(sigma)) == pytest.approx(sigma, rel=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_percent_runs_from_above_every_sigma_to_zero(name: str) -> None:
    schedule = SCHEDULES[name]
    way = [schedule.percent_to_sigma(percent) for percent in (0.0, 0.001, 0.3, 0.6, 0.999, 1.0)]
    assert way == sorted(way, reverse=True)
    assert way[0] >= schedule.sigma_max and way[-1] == 0


def test_exact_values_of_the_middle_of_the_way() -> None:
    assert SCHEDULES["edm"].percent_to_sigma(0.5) == pytest.approx(math.sqrt(0.002 * 120))
    assert SCHEDULES["sd3"].percent_to_sigma(0.5) == pytest.approx(0.75)
    assert SCHEDULES["flux"].percent_to_sigma(0.5) == pytest.approx(math.exp(1.15) / (math.exp(1.15) + 1))
    assert SCHEDULES["sd3"].timestep(0.25) == 250 and SCHEDULES["flux"].timestep(0.25) == 0.25
    assert SCHEDULES["edm"].timestep(math.e) == pytest.approx(0.25)
    assert SCHEDULES["v"].timestep(1.0) == pytest.approx(0.5)
    assert SCHEDULES["cosmos"].timestep(1.0) == pytest.approx(0.5)


def test_a_distilled_schedule_has_every_twentieth_timestep_and_the_last() -> None:
    lcm = SD.distilled()
    assert len(lcm.sigmas) == 50 and lcm.sigma_max == SD.sigma_max
    assert lcm.timestep(lcm.sigma_min) == 19 and lcm.timestep(lcm.sigma_max) == 999
    assert lcm.sigma(0) == pytest.approx(SD.sigma(19)) and lcm.sigma(500) != SD.sigma(500)


def test_zero_terminal_snr_keeps_the_first_sigma_and_ends_in_noise() -> None:
    zsnr = ZSNR
    assert zsnr.sigma_min == pytest.approx(SD.sigma_min, rel=1e-4)
    assert zsnr.sigma_max == pytest.approx(4518.75, rel=1e-4)


def test_a_flow_model_is_mixed_and_finished() -> None:
    flow = FlowSchedule()
    latent, noise = torch.full((1, 1, 2, 2), 2.0), torch.ones(1, 1, 2, 2)
    assert flow.add_noise(latent, noise, 0.25).eq(1.75).all()
    assert flow.add_noise(latent, noise, 1.0, pure=True).eq(1.0).all()
    assert flow.finish(flow.add_noise(latent, torch.zeros_like(noise), 0.25), 0.25).allclose(latent)
    assert flow.alpha(0.25) == 0.75 and SD.alpha(3.0) == 1.0
    assert SD.finish(latent, 0.25) is latent


CLEAN, NOISE = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
OUTPUTS = {  # what a perfect model answers
    "eps": lambda sigma: NOISE,
    "v": lambda sigma: (NOISE - CLEAN * sigma) / math.sqrt(sigma**2 + 1),
    "x0": lambda sigma: CLEAN,
    "img_to_img": lambda sigma: CLEAN,
    "edm": lambda sigma: (CLEAN * sigma - NOISE * 0.25) / (0.5 * math.sqrt(sigma**2 + 0.25)),
    "flow": lambda sigma: NOISE - CLEAN,
    "cosmos_rflow": lambda sigma: NOISE - CLEAN,
    "lcm": lambda sigma: NOISE,
}


@pytest.mark.parametrize("name", PREDICTIONS)
def test_a_perfect_answer_gives_the_clean_latent(name: str) -> None:
    sigma = 0.7
    x = CLEAN * (1 - sigma if name == "flow" else 1) + NOISE * sigma
    # LCM's boundary condition fades with the timestep: at 999 it is gone
    denoised = PREDICTIONS[name].denoised(x, OUTPUTS[name](sigma), sigma, 999.0)  # type: ignore[index]
    assert torch.allclose(denoised, CLEAN, atol=1e-4)


def test_lcm_keeps_its_input_at_timestep_zero() -> None:
    assert torch.allclose(PREDICTIONS["lcm"].denoised(CLEAN, NOISE, 0.7, 0.0), CLEAN)


@pytest.mark.parametrize(
    ("name", "factor"), [("eps", 0.6), ("v", 0.6), ("x0", 0.6), ("flow", 1.0), ("img_to_img", 1.0)]
)
def test_the_input_of_the_model(name: str, factor: float) -> None:
    assert torch.allclose(PREDICTIONS[name].input(CLEAN, 4 / 3), CLEAN * factor)  # type: ignore[index]


def test_edm_scales_to_unit_variance_for_data_of_half_a_deviation() -> None:
    assert torch.allclose(PREDICTIONS["edm"].input(CLEAN, 1.2), CLEAN / 1.3)
    assert torch.allclose(PREDICTIONS["cosmos_rflow"].input(CLEAN, 1.0), CLEAN / 2)
