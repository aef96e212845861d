"""Nodes of sigmas: exact values, and that nothing of a list is lost where it is cut."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch

from engine.families.base import LatentFormat, Model
from engine.families.discover import family
from engine.graph.node import NodeContext
from engine.models.manager import ModelRef
from engine.nodes import sigmas
from engine.sampling.sigma_lists import ALIGN_YOUR_STEPS, NotPositive, table_sigmas

CTX = cast(NodeContext, None)
MODEL = Model(family("sd1"), ModelRef("m", "denoiser", "m"), {}, "eps", LatentFormat(), {})
LIST = torch.tensor([14.0, 7.0, 3.0, 1.0, 0.0])


def test_a_basic_list_of_half_denoise_is_the_end_of_one_twice_as_long() -> None:
    (whole,) = sigmas.basic_scheduler(CTX, MODEL, "karras", 8, 1.0)
    (half,) = sigmas.basic_scheduler(CTX, MODEL, "karras", 4, 0.5)
    assert torch.equal(half, whole[-5:]) and half.dtype == torch.float32
    assert len(sigmas.basic_scheduler(CTX, MODEL, "karras", 4, 0.0)[0]) == 0
    assert len(sigmas.basic_scheduler(CTX, MODEL, "ddim_uniform", 7, 1.0)[0]) == 8  # the scheduler gives one more


def test_turbo_starts_at_the_tenths_of_the_timesteps() -> None:
    schedule = family("sd1").schedule(MODEL)
    (three,) = sigmas.sd_turbo_scheduler(CTX, MODEL, 3, 0.5)
    assert three.tolist() == pytest.approx([schedule.sigma(t) for t in (499, 399, 299)] + [0.0])
    assert len(sigmas.sd_turbo_scheduler(CTX, MODEL, 10, 1.0)[0]) == 11


def test_formulas() -> None:
    (vp,) = sigmas.vp_scheduler(CTX, 3, 19.9, 0.1, 0.001)
    times = (1.0, 0.5005, 0.001)
    assert vp.tolist() == pytest.approx([math.sqrt(math.expm1(19.9 * t * t / 2 + 0.1 * t)) for t in times] + [0.0])
    (laplace,) = sigmas.laplace_scheduler(CTX, 5, 14.6, 0.03, 0.0, 0.5)
    middle = math.exp(-0.5 * math.log(0.5 + 1e-5))
    assert laplace.tolist() == pytest.approx([14.6, middle, 1.0, 1 / middle, 0.03], rel=1e-5)
    (poly,) = sigmas.polyexponential_scheduler(CTX, 3, math.e, 1 / math.e, 2.0)
    assert poly.tolist() == pytest.approx([math.e, math.exp(-0.5), 1 / math.e, 0.0])
    (exponential,) = sigmas.exponential_scheduler(CTX, 3, math.e, 1 / math.e)
    assert exponential.tolist() == pytest.approx([math.e, 1.0, 1 / math.e, 0.0])


def test_published_tables_and_what_lies_between_their_entries() -> None:
    table = ALIGN_YOUR_STEPS["SD1"]
    assert table_sigmas(table, 10) == [*table[:-1], 0.0]
    assert table_sigmas(table, 10, 0.5) == [*table[5:-1], 0.0]
    twenty = table_sigmas(table, 20)
    assert len(twenty) == 21 and twenty[::2][:-1] == pytest.approx(table[:-1])
    assert twenty[1] == pytest.approx(math.sqrt(table[0] * table[1]))
    assert table_sigmas(table, 10, 0.0) == []


@pytest.mark.parametrize("step", [0, 2, 4, 9])
def test_two_parts_meet_at_one_sigma(step: int) -> None:
    high, low = sigmas.split_sigmas(CTX, LIST, step)
    assert torch.equal(torch.cat([high, low[1:]]), LIST)


@pytest.mark.parametrize(("denoise", "high", "low"), [(0.5, 3, 3), (1.0, 1, 5), (0.0, 0, 1)])
def test_a_split_by_denoise_gives_the_second_part_that_share(denoise: float, high: int, low: int) -> None:
    parts = sigmas.split_sigmas_denoise(CTX, LIST, denoise)
    assert [len(part) for part in parts] == [high, low]


def test_flipping_leaves_no_zero_to_divide_by_and_the_list_as_it_was() -> None:
    (flipped,) = sigmas.flip_sigmas(CTX, LIST)
    assert flipped.tolist() == pytest.approx([0.0001, 1.0, 3.0, 7.0, 14.0])
    (first,) = sigmas.set_first_sigma(CTX, LIST, 20.0)
    assert first.tolist() == [20.0, 7.0, 3.0, 1.0, 0.0]
    assert LIST.tolist() == [14.0, 7.0, 3.0, 1.0, 0.0]


def test_steps_between_two_sigmas_are_divided() -> None:
    (linear,) = sigmas.extend_intermediate_sigmas(CTX, LIST, 2, 8.0, 2.0, "linear")
    assert linear.tolist() == [14.0, 7.0, 5.0, 3.0, 2.0, 1.0, 0.0]
    (sine,) = sigmas.extend_intermediate_sigmas(CTX, LIST, 2, -1.0, 12.0, "sine")
    assert sine.tolist() == pytest.approx([14.0, 14 - 7 * (1 - math.cos(math.pi / 4)), 7.0, 3.0, 1.0, 0.0])


def test_numbers_of_a_text() -> None:
    (given,) = sigmas.manual_sigmas(CTX, "1, .5 and 1e-1; 2.\n0")
    assert given.tolist() == pytest.approx([1.0, 0.5, 0.1, 2.0, 0.0])
    assert len(sigmas.manual_sigmas(CTX, "none")[0]) == 0


@pytest.mark.parametrize(("percent", "actual", "sigma"), [(0.0, False, 999999999.9), (1.0, False, 0.0)])
def test_percents_beyond_the_models_sigmas(percent: float, actual: bool, sigma: float) -> None:
    assert sigmas.sampling_percent_to_sigma(CTX, MODEL, percent, actual) == (sigma,)
    schedule = family("sd1").schedule(MODEL)
    expected = schedule.sigma_min if percent else schedule.sigma_max
    assert sigmas.sampling_percent_to_sigma(CTX, MODEL, percent, True) == (expected,)


@pytest.mark.parametrize(
    ("make", "given"),
    [
        (sigmas.karras_scheduler, {"sigma_max": 14.0, "sigma_min": 0.1, "rho": 0.0}),
        (sigmas.exponential_scheduler, {"sigma_max": 14.0, "sigma_min": 0.0}),
        (sigmas.polyexponential_scheduler, {"sigma_max": 0.0, "sigma_min": 0.1, "rho": 1.0}),
    ],
)
def test_what_has_no_logarithm_is_named(make: Any, given: dict[str, float]) -> None:
    with pytest.raises(NotPositive, match="must be above 0"):
        make(CTX, 4, **given)


@pytest.mark.parametrize("latent", [None, {"samples": torch.zeros(1, 128, 3, 20, 20)}])
def test_ltx_videos_sigmas_are_those_of_its_diffusers_scheduler(latent: dict[str, Any] | None) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    tokens = 4096 if latent is None else 3 * 20 * 20
    mu = 0.95 + (2.05 - 0.95) * (tokens - 1024) / 3072
    for terminal in (0.1, None):
        theirs = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=terminal)
        theirs.set_timesteps(sigmas=[1 - i / 8 for i in range(8)], mu=mu)
        (ours,) = sigmas.ltxv_scheduler(CTX, 8, 2.05, 0.95, terminal is not None, terminal or 0.3, latent)
        assert torch.allclose(ours, theirs.sigmas, atol=1e-6)
    (one,) = sigmas.ltxv_scheduler(CTX, 1, 2.05, 0.95, True, 0.1, latent)
    assert one.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 0.6), (0.6, 0.0)])
def test_a_beta_distribution_has_two_numbers_above_zero(alpha: float, beta: float) -> None:
    with pytest.raises(NotPositive, match="must be above 0 for a Beta list of sigmas"):
        sigmas.beta_sampling_scheduler(CTX, MODEL, 10, alpha, beta)
