"""One sampling run: a latent and noise go in, a clean latent comes out. What KSampler and its relatives share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.errors import GraphError
from engine.families.base import Model
from engine.models.manager import ModelManager
from engine.sampling.denoiser import Callback, GuidedDenoiser, Step, silent
from engine.sampling.guidance import Guided
from engine.sampling.guiders import Guider
from engine.sampling.inpaint import Masked, fit_mask
from engine.sampling.model import guided
from engine.sampling.noise import Noise, brownian_noise, initial_noise, step_noise
from engine.sampling.samplers.table import Sampler

NO_LOGARITHM = ("math domain error", "expected a positive input")  # what Python's math says of 0, by its version


class NotANumber(GraphError):
    en = (
        "{sampler} gave values that are not numbers at step {step} of {total} (sigma {sigma:.4g}). "
        "The model overflowed in its number type, or its weights are broken; try another sampler or a lower cfg."
    )
    zh = (
        "{sampler} 在第 {step}/{total} 步（sigma {sigma:.4g}）产生了无效数值。"
        "模型在其数值类型中溢出，或权重已损坏；请尝试其他采样器或更低的 cfg。"
    )


class BadSigmas(GraphError):
    en = "Sigmas must be numbers from 0 on, and one of them above 0; these are {sigmas}."
    zh = "sigma 必须是不小于 0 的数值，且至少一个大于 0；当前为 {sigmas}。"


class NoWay(GraphError):
    en = (
        "{sampler} can't go along the sigmas {sigmas} ({reason}). They must fall from step to step, to 0 or a number "
        "above it, and not exceed 1 for flow models; another sampler may take them."
    )
    zh = (
        "{sampler} 无法沿 sigma {sigmas} 采样（{reason}）。它们须逐步下降、以不小于 0 的值结束，"
        "流模型不得超过 1；也可换用其他采样器。"
    )


class KeepsItsSize(GraphError):
    en = (
        "{sampler} changes the size of the latent on the way, but {what} has the size that it starts with. Take that "
        "out, or choose another sampler."
    )
    zh = "{sampler} 会在采样过程中改变潜变量的尺寸，但{what_zh}的尺寸固定为起始尺寸。请移除它，或换用其他采样器。"


class WrongChannels(GraphError):
    en = "The latent has {got} channels, but {model} is {title} and works on {need}. Use the VAE of {title}."
    zh = "潜变量有 {got} 个通道，但 {model} 是 {title}，需要 {need} 个。请使用 {title} 的 VAE。"


class WrongShape(GraphError):
    en = "The latent has the shape {shape}, but {model} works on pictures: (batch, channels, height, width)."
    zh = "潜变量的形状为 {shape}，但 {model} 处理的是图片：（批次, 通道, 高, 宽）。"


@dataclass(frozen=True)
class Sampled:
    """latent: where the run ended. denoised: the model's last estimate of the clean latent. Both (batch, c, h, w) in
    the VAE's scale, on the CPU in float32."""

    latent: Tensor
    denoised: Tensor


@torch.no_grad()
def sample(
    models: ModelManager,
    guider: Guider,
    *,
    sampler: Sampler,
    sigmas: Sequence[float],
    noise: Noise,
    latent: Tensor,
    batch_index: Sequence[int] | None = None,
    noise_mask: Tensor | None = None,
    callback: Callback = silent,
    interrupt_check: Callable[[], None] = lambda: None,
) -> Sampled:
    """latent (batch, c, h, w) in the VAE's scale -> where the sampler takes it over the sigmas. Without sigmas it is
    handed on; of one, it gets the noise of that sigma.

    noise_mask: 1 where the picture is made anew, of any size. Raises Cancelled from the callback or the check,
    NotANumber when the model breaks down, BadSigmas and NoWay where no sampler or not this one can go along them.
    """
    model = guider.model
    latent = fit_channels(latent, model)
    if not sigmas:
        return Sampled(latent, latent)
    scaled = model.latent.scaled(latent.float()) if latent.any() else latent.float()
    drawn = noise.draw(scaled, batch_index)
    steps = [float(sigma) for sigma in sigmas]
    if not all(math.isfinite(sigma) and sigma >= 0 for sigma in steps) or not any(steps):
        raise BadSigmas(sigmas=_few(steps))
    last: Tensor | None = None

    falling = all(here > there for here, there in itertools.pairwise(steps))

    def watched(step: Step) -> None:
        nonlocal last
        if not bool(torch.isfinite(step.denoised).all()):
            if not falling and step.index and not bool(torch.isfinite(step.x).all()):
                raise NoWay(sampler=sampler.name, sigmas=_few(steps), reason="0 / 0")
            raise NotANumber(sampler=sampler.name, step=step.index + 1, total=step.total, sigma=step.sigma)
        last = step.denoised
        callback(step)

    fitted = None if noise_mask is None else fit_mask(noise_mask, scaled)
    with guided(models, guider, scaled, steps, interrupt_check, fitted, sampler.growth) as (denoiser, device):
        schedule = denoiser.schedule
        scaled, drawn = scaled.to(device), drawn.to(device)
        x = schedule.add_noise(scaled, drawn, steps[0], pure=schedule.is_pure_noise(steps[0]))
        if sampler.resizes:
            _check_resizable(sampler, denoiser, fitted)
        masked: GuidedDenoiser = denoiser
        if fitted is not None:
            kept = initial_noise(scaled, (noise.seed + 1) % 2**64).to(device) if sampler.fresh_mask_noise else drawn
            masked = Masked(denoiser, schedule, fitted.to(device), scaled, kept, patches=model.patches, sigmas=steps)
        if len(steps) > 1:
            source = brownian_noise(x, steps, noise.seed) if sampler.noise == "brownian" else step_noise(x, noise.seed)
            try:
                x = sampler.on(schedule)(masked, x, steps, callback=watched, noise=source)
            except (ArithmeticError, ValueError) as error:
                if isinstance(error, ArithmeticError) or str(error).startswith(NO_LOGARITHM):
                    raise NoWay(sampler=sampler.name, sigmas=_few(steps), reason=error) from error
                raise
        x = schedule.finish(x, steps[-1])
        if not bool(torch.isfinite(x).all()):
            raise NotANumber(sampler=sampler.name, step=len(steps) - 1, total=len(steps) - 1, sigma=steps[-1])
        ended, denoised = (_unscaled(found, model) for found in (x, x if last is None else last))
        return Sampled(ended, denoised)


def _check_resizable(sampler: Sampler, denoiser: Guided, mask: Tensor | None) -> None:
    sized = {condition for side in denoiser.sides for condition in side if condition.has_size}
    if mask is not None or sized:
        what, what_zh = ("a prompt's area or mask", "提示词的区域或遮罩") if sized else ("the noise mask", "噪声遮罩")
        raise KeepsItsSize(sampler=sampler.name, what=what, what_zh=what_zh)


def _few(sigmas: Sequence[float]) -> str:
    """The first ones, for a message."""
    shown = ", ".join(f"{sigma:.4g}" for sigma in sigmas[:8])
    return f"{shown} ..." if len(sigmas) > 8 else shown


def _unscaled(latent: Tensor, model: Model) -> Tensor:
    return model.latent.unscaled(latent).to("cpu", torch.float32)


def fit_channels(latent: Tensor, model: Model) -> Tensor:
    """An empty latent takes the model's number of channels; one with a picture in it must have it.
    WrongShape, WrongChannels."""
    if latent.ndim != 4:
        raise WrongShape(shape=tuple(latent.shape), model=model.ref.title)
    need = model.latent.channels
    if latent.shape[1] == need:
        return latent
    if latent.any():
        raise WrongChannels(got=latent.shape[1], need=need, model=model.ref.title, title=model.family.spec.title)
    return latent.new_zeros((latent.shape[0], need, *latent.shape[2:]))
