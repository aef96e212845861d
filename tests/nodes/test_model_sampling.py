"""ModelSampling nodes: which schedule and prediction they put into a model."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch

from engine.families.base import LatentFormat, Model
from engine.families.discover import family
from engine.families.parts.layers import Storage, keep_stored
from engine.families.parts.recast import recast
from engine.families.parts.schedule import NoRange
from engine.graph.node import NodeContext
from engine.models.manager import ModelRef
from engine.nodes import model_sampling as nodes
from engine.sampling.model import schedule_of
from engine.sampling.schedulers import sigmas_for
from tests.sampling.test_run import Context as RunContext
from tests.sampling.test_run import model as tiny
from tests.sampling.test_run import run

CTX = cast(NodeContext, None)
MODEL = Model(family("sd1"), ModelRef("m", "denoiser", "m"), {}, "eps", LatentFormat(), {})


@pytest.mark.parametrize(
    ("sampling", "prediction"),
    [("eps", "eps"), ("v_prediction", "v"), ("lcm", "lcm"), ("x0", "x0"), ("img_to_img", "img_to_img")],
)
def test_discrete(sampling: str, prediction: str) -> None:
    (model,) = nodes.model_sampling_discrete(CTX, MODEL, sampling, False)
    assert model.prediction == prediction and MODEL.schedule is None
    assert len(schedule_of(model).sigmas) == (50 if sampling == "lcm" else 1000)
    assert schedule_of(model).sigma_max == pytest.approx(14.614642, abs=1e-5)
    (zsnr,) = nodes.model_sampling_discrete(CTX, MODEL, sampling, True)
    assert schedule_of(zsnr).sigma_max == pytest.approx(4518.75, rel=1e-4)


def test_the_sigmas_of_a_consistency_model_are_every_twentieth() -> None:
    (model,) = nodes.model_sampling_discrete(CTX, MODEL, "lcm", False)
    whole = family("sd1").schedule(MODEL).sigmas
    assert torch.equal(schedule_of(model).sigmas, whole[19::20])


def test_continuous() -> None:
    (edm,) = nodes.model_sampling_continuous_edm(CTX, MODEL, "edm", 80.0, 0.002)
    assert edm.prediction == "edm" and schedule_of(edm).timestep(1.0) == 0.0
    (v,) = nodes.model_sampling_continuous_v(CTX, MODEL, "v_prediction", 500.0, 0.03)
    assert v.prediction == "v" and schedule_of(v).sigma(0.5) == pytest.approx(1.0)
    (cosmos,) = nodes.model_sampling_continuous_edm(CTX, MODEL, "cosmos_rflow", 80.0, 0.002)
    assert cosmos.prediction == "cosmos_rflow" and schedule_of(cosmos).timestep(3.0) == 0.75
    with pytest.raises(NoRange, match="from 1 down to 2"):
        nodes.model_sampling_continuous_edm(CTX, MODEL, "eps", 1.0, 2.0)


def test_playground_has_its_own_latents() -> None:
    (model,) = nodes.model_sampling_continuous_edm(CTX, MODEL, "edm_playground_v2.5", 80.0, 0.002)
    latent = torch.randn(1, 4, 2, 2)
    scaled = model.latent.scaled(latent)
    assert float(scaled[0, 1, 0, 0]) == pytest.approx((float(latent[0, 1, 0, 0]) - 1.886) * 0.5 / 5.9022, rel=1e-5)
    assert torch.allclose(model.latent.unscaled(scaled), latent, atol=1e-6)
    assert MODEL.latent.means == ()


def test_flows() -> None:
    (sd3,) = nodes.model_sampling_sd3(CTX, MODEL, 3.0)
    (aura,) = nodes.model_sampling_aura_flow(CTX, MODEL, 1.73)
    assert sd3.prediction == aura.prediction == "flow"
    assert (schedule_of(sd3).timestep(0.5), schedule_of(aura).timestep(0.5)) == (500.0, 0.5)
    assert schedule_of(sd3).percent_to_sigma(0.5) == pytest.approx(0.75)
    assert schedule_of(aura).percent_to_sigma(0.5) == pytest.approx(1.73 / 2.73)


@pytest.mark.parametrize(("side", "mu"), [(1024, 1.15), (256, 0.5), (512, 0.5 + 0.65 * 768 / 3840)])
def test_the_shift_of_flux_grows_with_the_picture(side: int, mu: float) -> None:
    (flux,) = nodes.model_sampling_flux(CTX, MODEL, 1.15, 0.5, side, side)
    assert schedule_of(flux).percent_to_sigma(0.5) == pytest.approx(math.exp(mu) / (math.exp(mu) + 1))
    assert len(schedule_of(flux).sigmas) == 10_000 and schedule_of(flux).sigma_max == 1.0


def test_the_shift_of_ltx_video_grows_with_the_latent() -> None:
    for latent, mu in ((None, 2.05), ({"samples": torch.zeros(1, 128, 4, 16, 16)}, 0.95)):
        (model,) = nodes.model_sampling_ltxv(CTX, MODEL, 2.05, 0.95, latent)
        assert model.prediction == "flow"
        assert schedule_of(model).percent_to_sigma(0.5) == pytest.approx(math.exp(mu) / (math.exp(mu) + 1))


def test_stable_cascade_has_the_noise_of_its_diffusers_scheduler() -> None:
    from diffusers import DDPMWuerstchenScheduler

    (model,) = nodes.model_sampling_stable_cascade(CTX, MODEL, 1.0)
    schedule, theirs = schedule_of(model), DDPMWuerstchenScheduler()
    for time in (0.1, 0.5, 0.9):
        abar = float(theirs._alpha_cumprod(torch.tensor([time]), "cpu"))
        assert schedule.sigma(time) == pytest.approx(math.sqrt((1 - abar) / abar), rel=1e-3)
        assert schedule.timestep(schedule.sigma(time)) == pytest.approx(time, abs=1e-6)
        assert schedule.percent_to_sigma(1 - time) == schedule.sigma(time)
    (shifted,) = nodes.model_sampling_stable_cascade(CTX, MODEL, 2.0)
    double = schedule_of(shifted)
    assert torch.allclose(double.sigmas, schedule.sigmas * 2) and double.sigma_max == 2 * schedule.sigma_max
    assert double.timestep(schedule.sigma(0.4)) == pytest.approx(0.4, abs=1e-6)
    assert (double.percent_to_sigma(0.0), double.percent_to_sigma(1.0)) == (math.inf, 0.0)
    sigmas = sigmas_for(double, "simple", 5)
    assert sigmas[0] == pytest.approx(double.sigma_max) and sigmas == sorted(sigmas, reverse=True)
    with pytest.raises(nodes.NoShift, match="above 0"):
        nodes.model_sampling_stable_cascade(CTX, MODEL, 0.0)


def test_a_model_in_another_type_is_a_model_of_its_own() -> None:
    ctx = RunContext()
    given = tiny(ctx)
    plain = run(ctx)
    as_node: Any = ctx
    assert nodes.model_compute_dtype(as_node, given, "default")[0] is given
    (half,) = nodes.model_compute_dtype(as_node, given, "bf16")
    out = run(ctx, half)
    assert torch.equal(run(ctx), plain) and not torch.equal(out, plain)
    assert float((out - plain).norm() / plain.norm()) < 0.05
    with ctx.models.lease(given.ref, half.ref) as leased:
        assert leased[given.ref].conv_in.weight.dtype == torch.float32
        assert leased[half.ref].conv_in.weight.dtype == torch.bfloat16
    (whole,) = nodes.model_compute_dtype(as_node, half, "fp32")
    assert float((run(ctx, whole) - plain).norm() / plain.norm()) < 0.05


def test_weights_that_are_kept_stored_stay_so_in_another_type() -> None:
    layer = torch.nn.Linear(4, 3, bias=False)
    module = torch.nn.Sequential(layer, torch.nn.LayerNorm(3))
    keep_stored(module, {"0": Storage(torch.float8_e4m3fn)})
    module[0].weight = torch.nn.Parameter(layer.weight.detach().to(torch.float8_e4m3fn), requires_grad=False)
    recast(module, torch.bfloat16)
    assert module[0].weight.dtype == torch.float8_e4m3fn and module[1].weight.dtype == torch.bfloat16
    assert module(torch.ones(2, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
