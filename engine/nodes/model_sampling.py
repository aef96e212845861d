"""Nodes that say how a model is to be sampled: another schedule, another reading of what it predicts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Any

import torch

from engine.errors import GraphError
from engine.families.base import Model, Prediction
from engine.families.parts.cosine_schedule import CosineSchedule
from engine.families.parts.edm import PLAYGROUND
from engine.families.parts.recast import in_dtype
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
# Flux' shift goes linearly with the tokens of a picture, one for 16 x 16 pixels, between these two counts.
FEW_TOKENS, MANY_TOKENS = 256, 4096
LTXV_FEW, LTXV_MANY = 1024, 4096
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class NoShift(GraphError):
    en = "A shift of {shift:g} leaves no noise at all: it must be above 0."
    zh = "shift 为 {shift:g} 时不会有任何噪声：必须大于 0。"


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
    return (replace(model, prediction="flow", schedule=_shifted(shift, 1000.0)),)


@node("ModelSamplingAuraFlow", title_zh="模型采样（AuraFlow）", category=CATEGORY, outputs=MODEL_OUT)
def model_sampling_aura_flow(ctx: NodeContext, model: MODEL, shift: Annotated[float, _shift(1.73)]) -> tuple[Model]:
    return (replace(model, prediction="flow", schedule=_shifted(shift, 1.0)),)


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
    mu = shift_for(width * height / 256, base_shift, max_shift, FEW_TOKENS, MANY_TOKENS)
    return (replace(model, prediction="flow", schedule=FlowSchedule.flux(mu)),)


@node("ModelSamplingLTXV", title_zh="模型采样（LTXV）", category=CATEGORY, outputs=MODEL_OUT)
def model_sampling_ltxv(
    ctx: NodeContext,
    model: MODEL,
    max_shift: Annotated[float, _shift(2.05)],
    base_shift: Annotated[float, _shift(0.95)],
    latent: Annotated[dict[str, Any] | None, In("LATENT")] = None,
) -> tuple[Model]:
    """The shift for a latent of that size, from base_shift at 1024 cells to max_shift at 4096."""
    mu = ltxv_shift(latent, base_shift, max_shift)
    return (replace(model, prediction="flow", schedule=FlowSchedule.flux(mu)),)


@node("ModelSamplingStableCascade", title_zh="模型采样（Stable Cascade）", category=CATEGORY, outputs=MODEL_OUT)
def model_sampling_stable_cascade(ctx: NodeContext, model: MODEL, shift: Annotated[float, _shift(2.0)]) -> tuple[Model]:
    """Noise that goes as a cosine; a higher shift stays longer at high noise."""
    if shift <= 0:
        raise NoShift(shift=shift)
    return (replace(model, prediction="eps", schedule=CosineSchedule(shift)),)


@node("ModelComputeDtype", title_zh="模型计算类型", category="advanced/debug/model", outputs=MODEL_OUT)
def model_compute_dtype(
    ctx: NodeContext, model: MODEL, dtype: Annotated[str, In(["default", *DTYPES], advanced=True)]
) -> tuple[Model]:
    """The type of numbers it runs in, whatever fits the device best by default. It is a model of its own in memory."""
    if dtype == "default":
        return (model,)
    return (replace(model, ref=in_dtype(ctx.models, model.ref, DTYPES[dtype])),)


def _shifted(shift: float, multiplier: float) -> FlowSchedule:
    if shift <= 0:
        raise NoShift(shift=shift)
    return FlowSchedule(shift, multiplier)


def shift_for(tokens: float, base: float, most: float, few: int, many: int) -> float:
    """On the line through `base` at few tokens and `most` at many."""
    return base + (most - base) * (tokens - few) / (many - few)


def ltxv_shift(latent: dict[str, Any] | None, base: float, most: float) -> float:
    """LTX-Video's (Lightricks, Apache-2.0): a token for each cell of the latent, 4096 where there is none."""
    tokens = LTXV_MANY if latent is None else math.prod(latent["samples"].shape[2:])
    return shift_for(tokens, base, most, LTXV_FEW, LTXV_MANY)
