"""Nodes that change how prompts are weighed against each other: engine/sampling/patches/guidance.py does the work."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated

from engine.families.base import Model
from engine.families.parts.patch import Patch
from engine.graph.node import CONDITIONING, MODEL, In, NodeContext, Out, node
from engine.sampling.model import schedule_of
from engine.sampling.patches import guidance, layers

MODEL_OUT = [Out("MODEL")]
PATCHED = [Out("MODEL", "patched_model")]
Layers = Annotated[str, In("STRING", default="7, 8, 9", multiline=False)]
Scale = Annotated[float, In("FLOAT", default=3.0, min=0.0, max=10.0, step=0.1)]


def _percent(default: float) -> In:
    return In("FLOAT", default=default, min=0.0, max=1.0, step=0.001)


def patched(model: Model, patch: Patch) -> Model:
    return replace(model, patches=(*model.patches, patch))


@node("RescaleCFG", title_zh="CFG 重缩放", category="advanced/model", outputs=MODEL_OUT)
def rescale_cfg(
    ctx: NodeContext, model: MODEL, multiplier: Annotated[float, In("FLOAT", default=0.7, min=0.0, max=1.0, step=0.01)]
) -> tuple[Model]:
    """Against washed out or burnt pictures of v models at a high cfg."""
    return (patched(model, guidance.rescale_cfg(multiplier)),)


@node("RenormCFG", title_zh="CFG 重归一化", category="advanced/model", outputs=MODEL_OUT)
def renorm_cfg(
    ctx: NodeContext,
    model: MODEL,
    cfg_trunc: Annotated[float, In("FLOAT", default=100, min=0.0, max=100.0, step=0.01)],
    renorm_cfg: Annotated[float, In("FLOAT", default=1.0, min=0.0, max=100.0, step=0.01)],
) -> tuple[Model]:
    return (patched(model, guidance.renorm_cfg(cfg_trunc, renorm_cfg)),)


@node("CFGZeroStar", title_zh="CFG-Zero*", category="advanced/guidance", outputs=PATCHED)
def cfg_zero_star(ctx: NodeContext, model: MODEL) -> tuple[Model]:
    return (patched(model, guidance.cfg_zero_star()),)


@node("CFGNorm", title_zh="CFG 归一化", category="advanced/guidance", outputs=PATCHED, experimental=True)
def cfg_norm(
    ctx: NodeContext, model: MODEL, strength: Annotated[float, In("FLOAT", default=1.0, min=0.0, max=100.0, step=0.01)]
) -> tuple[Model]:
    return (patched(model, guidance.cfg_norm(strength)),)


@node("TCFG", title="Tangential Damping CFG", title_zh="切向阻尼 CFG", category="advanced/guidance", outputs=PATCHED)
def tcfg(ctx: NodeContext, model: MODEL) -> tuple[Model]:
    return (patched(model, guidance.tangential_damping()),)


@node(
    "Mahiro",
    title="Mahiro is so cute that she deserves a better guidance function!! (。・ω・。)",
    title_zh="Mahiro 引导",
    category="_for_testing",
    outputs=PATCHED,
)
def mahiro(ctx: NodeContext, model: MODEL) -> tuple[Model]:
    return (patched(model, guidance.mahiro()),)


@node("Epsilon Scaling", title_zh="噪声预测缩放", category="model_patches/unet", outputs=MODEL_OUT)
def epsilon_scaling(
    ctx: NodeContext,
    model: MODEL,
    scaling_factor: Annotated[float, In("FLOAT", default=1.005, min=0.5, max=1.5, step=0.001)],
) -> tuple[Model]:
    return (patched(model, guidance.epsilon_scaling(scaling_factor)),)


@node(
    "PerpNeg",
    title="Perp-Neg (DEPRECATED by PerpNegGuider)",
    title_zh="Perp-Neg（已由 PerpNegGuider 取代）",
    category="_for_testing",
    outputs=MODEL_OUT,
    deprecated=True,
)
def perp_neg(
    ctx: NodeContext,
    model: MODEL,
    empty_conditioning: CONDITIONING,
    neg_scale: Annotated[float, In("FLOAT", default=1.0, min=0.0, max=100.0, step=0.01)],
) -> tuple[Model]:
    return (patched(model, guidance.perp_neg(empty_conditioning, neg_scale)),)


@node(
    "DifferentialDiffusion",
    title="Differential Diffusion",
    title_zh="差分扩散",
    category="_for_testing",
    outputs=MODEL_OUT,
)
def differential_diffusion(
    ctx: NodeContext,
    model: MODEL,
    strength: Annotated[float, In("FLOAT", default=1.0, min=0.0, max=1.0, step=0.01)] = 1.0,
) -> tuple[Model]:
    """The grey levels of a noise mask say how much each cell changes."""
    return (patched(model, guidance.differential_diffusion(strength)),)


@node(
    "SkipLayerGuidanceDiT",
    title_zh="跳层引导（DiT）",
    category="advanced/guidance",
    outputs=MODEL_OUT,
    experimental=True,
)
def skip_layer_guidance_dit(
    ctx: NodeContext,
    model: MODEL,
    double_layers: Layers,
    single_layers: Layers,
    scale: Scale,
    start_percent: Annotated[float, _percent(0.01)],
    end_percent: Annotated[float, _percent(0.15)],
    rescaling_scale: Annotated[float, In("FLOAT", default=0.0, min=0.0, max=10.0, step=0.01)],
) -> tuple[Model]:
    """Away from what the model makes without those blocks; for transformers such as SD 3.5 and Flux."""
    return (_skipping(model, double_layers, single_layers, scale, start_percent, end_percent, rescaling_scale),)


@node(
    "SkipLayerGuidanceSD3",
    title_zh="跳层引导（SD3）",
    category="advanced/guidance",
    outputs=MODEL_OUT,
    experimental=True,
)
def skip_layer_guidance_sd3(
    ctx: NodeContext,
    model: MODEL,
    layers: Layers,
    scale: Scale,
    start_percent: Annotated[float, _percent(0.01)],
    end_percent: Annotated[float, _percent(0.15)],
) -> tuple[Model]:
    return (_skipping(model, layers, "", scale, start_percent, end_percent, 0.0),)


@node(
    "SkipLayerGuidanceDiTSimple",
    title_zh="跳层引导（DiT，简单）",
    category="advanced/guidance",
    outputs=MODEL_OUT,
    experimental=True,
)
def skip_layer_guidance_dit_simple(
    ctx: NodeContext,
    model: MODEL,
    double_layers: Layers,
    single_layers: Layers,
    start_percent: Annotated[float, _percent(0.0)],
    end_percent: Annotated[float, _percent(1.0)],
) -> tuple[Model]:
    """The negative prompt is asked without those blocks: as fast as without this node."""
    double, single = _numbers(double_layers), _numbers(single_layers)
    if not double and not single:
        return (model,)
    start, end = _sigmas(model, start_percent, end_percent)
    return (patched(model, layers.skip_layers_of_negative(double, single, start, end)),)


def _skipping(model: Model, double: str, single: str, scale: float, start: float, end: float, rescale: float) -> Model:
    numbers = _numbers(double), _numbers(single)
    if not any(numbers):
        return model
    return patched(model, layers.skip_layers(*numbers, scale, *_sigmas(model, start, end), rescale))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _sigmas(model: Model, start_percent: float, end_percent: float) -> tuple[float, float]:
    schedule = schedule_of(model)
    return schedule.percent_to_sigma(start_percent), schedule.percent_to_sigma(end_percent)
