"""Nodes that say how a model is to be sampled: another schedule, another reading of what it predicts."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from engine.families.base import Model, Prediction
from engine.families.parts.schedule import (
    ContinuousSchedule,
    DiscreteSchedule,
    FlowSchedule,
    scaled_linear_alphas_cumprod,
    zero_terminal_snr,
)
from engine.graph.limits import MAX_SIDE
from engine.graph.node import MODEL, In, NodeContext, Out, node

CATEGORY = "advanced/model"
MODEL_OUT = [Out("MODEL")]

# ComfyUI's names of predictions.
DISCRETE: dict[str, Prediction] = {
    "eps": "eps",
    "v_prediction": "v",
    "lcm": "lcm",
    "x0": "x0",
    "img_to_img": "img_to_img",
}
EDM: dict[str, Prediction] = {
    "v_prediction": "v",
    "edm": "edm",
    "edm_playground_v2.5": "edm",
    "eps": "eps",
    "cosmos_rflow": "cosmos_rflow",
}
# The latents that Playground 2.5 was trained on: each channel of SDXL's normalised, then halved.
PLAYGROUND: dict[str, Any] = {
    "scale": 0.5,
    "means": (-1.6574, 1.886, -1.383, 2.5155),
    "deviations": (8.4927, 5.9022, 6.5498, 5.2299),
}
# Flux' shift goes linearly with the tokens of a picture, one for 16 x 16 pixels, between these two counts.
FEW_TOKENS, MANY_TOKENS = 256, 4096


def _sigma(default: float) -> In:
    return In("FLOAT", default=default, min=0.0, max=1000.0, step=0.001, round=False)


def _shift(default: float) -> In:
    return In("FLOAT", default=default, min=0.0, max=100.0, step=0.01)


@node("ModelSamplingDiscrete", title_zh="模型采样（离散）", category=CATEGORY, outputs=MODEL_OUT)
def model_sampling_discrete(
    ctx: NodeContext,
    model: MODEL,
    sampling: Annotated[str, In(list(DISCRETE))],
    zsnr: Annotated[bool, In("BOOLEAN", default=False)],
) -> tuple[Model]:
    """Stable Diffusion's thousand timesteps; zsnr: the last one is pure noise, as some v models were trained."""
    abar = scaled_linear_alphas_cumprod()
    schedule = DiscreteSchedule.from_alphas_cumprod(zero_terminal_snr(abar) if zsnr else abar)
    if sampling == "lcm":
        schedule = schedule.distilled()
    return (replace(model, prediction=DISCRETE[sampling], schedule=schedule),)


@node("ModelSamplingContinuousEDM", title_zh="模型采样（连续 EDM）", category=CATEGORY, outputs=MODEL_OUT)
def model_sampling_continuous_edm(
    ctx: NodeContext,
    model: MODEL,
    sampling: Annotated[str, In(list(EDM))],
    sigma_max: Annotated[float, _sigma(120.0)],
    sigma_min: Annotated[float, _sigma(0.002)],
) -> tuple[Model]:
    given: Model = model
    schedule = ContinuousSchedule.between(sigma_min, sigma_max, "flow" if sampling == "cosmos_rflow" else "edm")
    latent = replace(given.latent, **PLAYGROUND) if sampling == "edm_playground_v2.5" else given.latent
    return (replace(given, prediction=EDM[sampling], schedule=schedule, latent=latent),)


@node("ModelSamplingContinuousV", title_zh="模型采样（连续 V）", category=CATEGORY, outputs=MODEL_OUT)
def model_sampling_continuous_v(
    ctx: NodeContext,
    model: MODEL,
    sampling: Annotated[str, In(["v_prediction"])],
    sigma_max: Annotated[float, _sigma(500.0)],
    sigma_min: Annotated[float, _sigma(0.03)],
) -> tuple[Model]:
    return (replace(model, prediction="v", schedule=ContinuousSchedule.between(sigma_min, sigma_max, "v")),)


@node("ModelSamplingSD3", title_zh="模型采样（SD3）", category=CATEGORY, outputs=MODEL_OUT)
def model_sampling_sd3(ctx: NodeContext, model: MODEL, shift: Annotated[float, _shift(3.0)]) -> tuple[Model]:
    """A higher shift stays longer at high noise: for larger pictures."""
    return (replace(model, prediction="flow", schedule=FlowSchedule(shift, 1000.0)),)


@node("ModelSamplingAuraFlow", title_zh="模型采样（AuraFlow）", category=CATEGORY, outputs=MODEL_OUT)
def model_sampling_aura_flow(ctx: NodeContext, model: MODEL, shift: Annotated[float, _shift(1.73)]) -> tuple[Model]:
    return (replace(model, prediction="flow", schedule=FlowSchedule(shift, 1.0)),)


@node("ModelSamplingFlux", title_zh="模型采样（Flux）", category=CATEGORY, outputs=MODEL_OUT)
def model_sampling_flux(
    ctx: NodeContext,
    model: MODEL,
    max_shift: Annotated[float, _shift(1.15)],
    base_shift: Annotated[float, _shift(0.5)],
    width: Annotated[int, In("INT", default=1024, min=16, max=MAX_SIDE, step=8)],
    height: Annotated[int, In("INT", default=1024, min=16, max=MAX_SIDE, step=8)],
) -> tuple[Model]:
    """The shift for pictures of that size, from base_shift at 256 x 256 to max_shift at 1024 x 1024."""
    slope = (max_shift - base_shift) / (MANY_TOKENS - FEW_TOKENS)
    mu = base_shift + slope * (width * height / 256 - FEW_TOKENS)
    return (replace(model, prediction="flow", schedule=FlowSchedule.flux(mu)),)
