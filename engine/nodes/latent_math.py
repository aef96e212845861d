"""Arithmetic with latents, and operations on them that can also act while a picture is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import torch
from torch import Tensor

from engine.families.base import Model
from engine.families.parts.patch import Guidance, Patch
from engine.families.parts.resizing import repeated_to, resized
from engine.graph.node import LATENT, MODEL, In, NodeContext, Out, node
from engine.nodes.effects import filtered, gaussian
from engine.nodes.latent import of_one_model

Latent = dict[str, Any]
Operation = Callable[[Tensor], Tensor]
LATENT_OPERATION = Annotated[Any, In("LATENT_OPERATION")]  # (batch, channel, height, width) -> the same


@node("LatentAdd", title="LatentAdd", title_zh="潜变量相加", category="latent/advanced", outputs=[Out("LATENT")])
def latent_add(ctx: NodeContext, samples1: LATENT, samples2: LATENT) -> tuple[Latent]:
    first = samples1["samples"]
    return ({**samples1, "samples": first + like(first, samples2["samples"])},)


@node(
    "LatentSubtract", title="LatentSubtract", title_zh="潜变量相减", category="latent/advanced", outputs=[Out("LATENT")]
)
def latent_subtract(ctx: NodeContext, samples1: LATENT, samples2: LATENT) -> tuple[Latent]:
    first = samples1["samples"]
    return ({**samples1, "samples": first - like(first, samples2["samples"])},)


@node(
    "LatentMultiply", title="LatentMultiply", title_zh="潜变量相乘", category="latent/advanced", outputs=[Out("LATENT")]
)
def latent_multiply(
    ctx: NodeContext,
    samples: LATENT,
    multiplier: Annotated[float, In("FLOAT", default=1.0, min=-10.0, max=10.0, step=0.01)],
) -> tuple[Latent]:
    return ({**samples, "samples": samples["samples"] * multiplier},)


@node(
    "LatentInterpolate",
    title="LatentInterpolate",
    title_zh="潜变量插值",
    category="latent/advanced",
    outputs=[Out("LATENT")],
)
def latent_interpolate(
    ctx: NodeContext,
    samples1: LATENT,
    samples2: LATENT,
    ratio: Annotated[float, In("FLOAT", default=1.0, min=0.0, max=1.0, step=0.01)],
) -> tuple[Latent]:
    """Between the second (0) and the first (1): directions of cells are mixed, and their lengths."""
    first = samples1["samples"]
    second = like(first, samples2["samples"])
    length1, length2 = _length(first), _length(second)
    mixed = _unit(first, length1) * ratio + _unit(second, length2) * (1.0 - ratio)
    return ({**samples1, "samples": _unit(mixed, _length(mixed)) * (length1 * ratio + length2 * (1.0 - ratio))},)


@node("LatentBlend", title="Latent Blend", title_zh="潜变量混合", category="_for_testing", outputs=[Out("LATENT")])
def latent_blend(
    ctx: NodeContext,
    samples1: LATENT,
    samples2: LATENT,
    blend_factor: Annotated[float, In("FLOAT", default=0.5, min=0, max=1, step=0.01)],
) -> tuple[Latent]:
    """1 is the first alone."""
    first, second = samples1["samples"], samples2["samples"]
    of_one_model(first, second)
    if second.shape != first.shape:
        second = resized(second, first.shape[3], first.shape[2], "bicubic", "center")
    return ({**samples1, "samples": first * blend_factor + second * (1 - blend_factor)},)


@node(
    "LatentApplyOperation",
    title="LatentApplyOperation",
    title_zh="应用潜变量运算",
    category="latent/advanced/operations",
    outputs=[Out("LATENT")],
)
def latent_apply_operation(ctx: NodeContext, samples: LATENT, operation: LATENT_OPERATION) -> tuple[Latent]:
    return ({**samples, "samples": operation(samples["samples"])},)


@node(
    "LatentApplyOperationCFG",
    title="LatentApplyOperationCFG",
    title_zh="在 CFG 中应用潜变量运算",
    category="latent/advanced/operations",
    outputs=[Out("MODEL")],
)
def latent_apply_operation_cfg(ctx: NodeContext, model: MODEL, operation: LATENT_OPERATION) -> tuple[Model]:
    """On what guidance adds at each step: the difference of the two estimates, or the one estimate."""

    def before(guidance: Guidance) -> tuple[Tensor, Tensor]:
        if not guidance.has_uncond:
            return operation(guidance.cond), guidance.uncond
        return operation(guidance.cond - guidance.uncond) + guidance.uncond, guidance.uncond

    return (replace(model, patches=(*model.patches, Patch("latent operation", pre=before))),)


@node(
    "LatentOperationTonemapReinhard",
    title="LatentOperationTonemapReinhard",
    title_zh="潜变量运算：Reinhard 色调映射",
    category="latent/advanced/operations",
    outputs=[Out("LATENT_OPERATION")],
)
def latent_operation_tonemap_reinhard(
    ctx: NodeContext, multiplier: Annotated[float, In("FLOAT", default=1.0, min=0.0, max=100.0, step=0.01)]
) -> tuple[Operation]:
    """Long vectors become shorter, the less the larger `multiplier` is (Reinhard et al. 2002)."""

    def tonemapped(latent: Tensor) -> Tensor:
        length = _length(latent) + 1e-10
        each = tuple(range(1, latent.ndim))
        top = (length.std(dim=each, keepdim=True) * 5 + length.mean(dim=each, keepdim=True)) * multiplier
        return latent * (top / (length + top))

    return (tonemapped,)


@node(
    "LatentOperationSharpen",
    title="LatentOperationSharpen",
    title_zh="潜变量运算：锐化",
    category="latent/advanced/operations",
    outputs=[Out("LATENT_OPERATION")],
)
def latent_operation_sharpen(
    ctx: NodeContext,
    sharpen_radius: Annotated[int, In("INT", default=9, min=1, max=31, step=1)],
    sigma: Annotated[float, In("FLOAT", default=1.0, min=0.1, max=10.0, step=0.1)],
    alpha: Annotated[float, In("FLOAT", default=0.1, min=0.0, max=5.0, step=0.01)],
) -> tuple[Operation]:
    """Directions are sharpened, lengths stay."""
    kernel = gaussian(sharpen_radius, sigma) * -(alpha * 10)
    kernel[sharpen_radius, sharpen_radius] += 1.0 - kernel.sum()

    def sharpened(latent: Tensor) -> Tensor:
        length = _length(latent) + 1e-6
        return filtered((latent / length).movedim(1, -1), kernel.to(latent)).movedim(-1, 1) * length

    return (sharpened,)


def like(first: Tensor, second: Tensor, *, batch: bool = True) -> Tensor:
    """The second latent with the size of the first, and with its batch where asked. Raises LatentsDiffer."""
    of_one_model(first, second)
    if second.shape[1:] != first.shape[1:]:
        second = resized(second, first.shape[-1], first.shape[-2], "bilinear", "center")
    return repeated_to(second, len(first)) if batch else second


def _length(latent: Tensor) -> Tensor:
    return torch.linalg.vector_norm(latent, dim=1, keepdim=True)


def _unit(latent: Tensor, length: Tensor) -> Tensor:
    return torch.nan_to_num(latent / length)
