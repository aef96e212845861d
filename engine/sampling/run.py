"""One sampling run: a latent and a seed go in, a clean latent comes out. What KSampler and its relatives share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from engine.errors import GraphError
from engine.families.base import Model
from engine.models.manager import ModelManager
from engine.sampling.denoiser import Callback, GuidedDenoiser, silent
from engine.sampling.inpaint import Masked, fit_mask
from engine.sampling.model import Conditioning, guided
from engine.sampling.noise import brownian_noise, initial_noise, step_noise
from engine.sampling.samplers.table import SAMPLERS


class NotANumber(GraphError):
    en = (
        "{sampler} gave values that are not numbers at step {step} of {total} (sigma {sigma:.4g}). "
        "The model overflowed in its number type, or its weights are broken; try another sampler or a lower cfg."
    )
    zh = (
        "{sampler} 在第 {step}/{total} 步（sigma {sigma:.4g}）产生了无效数值。"
        "模型在其数值类型中溢出，或权重已损坏；请尝试其他采样器或更低的 cfg。"
    )


class WrongChannels(GraphError):
    en = "The latent has {got} channels, but {model} works on {need}. Use an empty latent or VAE of that model family."
    zh = "潜变量有 {got} 个通道，但 {model} 需要 {need} 个。请使用该模型系列的空潜变量或 VAE。"


@torch.no_grad()
def sample(
    models: ModelManager,
    model: Model,
    *,
    sampler_name: str,
    sigmas: Sequence[float],
    positive: Conditioning,
    negative: Conditioning,
    cfg: float,
    seed: int,
    latent: Tensor,
    add_noise: bool = True,
    batch_index: Sequence[int] | None = None,
    noise_mask: Tensor | None = None,
    callback: Callback = silent,
    interrupt_check: Callable[[], None] = lambda: None,
) -> Tensor:
    """latent (batch, c, h, w) in the VAE's scale -> the sampled one, on the CPU in float32.

    noise_mask: 1 where the picture is made anew, of any size. Raises Cancelled from the callback or the check,
    NotANumber when the model breaks down.
    """
    latent = fit_channels(latent, model)
    if len(sigmas) < 2:
        return latent
    scaled = (latent.float() - model.latent.shift) * model.latent.scale if latent.any() else latent.float()
    drawn = initial_noise(scaled, seed, batch_index) if add_noise else torch.zeros_like(scaled)
    sampler = SAMPLERS[sampler_name]
    steps = [float(sigma) for sigma in sigmas]
    with guided(models, model, positive, negative, cfg, scaled, interrupt_check) as (denoiser, device):
        schedule = denoiser.schedule
        scaled, drawn = scaled.to(device), drawn.to(device)
        x = schedule.add_noise(scaled, drawn, steps[0], pure=schedule.is_pure_noise(steps[0]))
        masked: GuidedDenoiser = denoiser
        if noise_mask is not None:
            kept = initial_noise(scaled, (seed + 1) % 2**64).to(device) if sampler.fresh_mask_noise else drawn
            masked = Masked(denoiser, fit_mask(noise_mask, scaled), scaled, kept)
        noise = brownian_noise(x, steps, seed) if sampler.noise == "brownian" else step_noise(x, seed)
        out = sampler.function(masked, x, steps, callback=callback, noise=noise, **sampler.options(schedule))
        if not bool(torch.isfinite(out).all()):
            raise NotANumber(sampler=sampler_name, step=len(steps) - 1, total=len(steps) - 1, sigma=steps[-2])
        return (out / model.latent.scale + model.latent.shift).to("cpu", torch.float32)


def fit_channels(latent: Tensor, model: Model) -> Tensor:
    """An empty latent takes the model's number of channels; one with a picture in it must have it. WrongChannels."""
    need = model.latent.channels
    if latent.shape[1] == need:
        return latent
    if latent.any():
        raise WrongChannels(got=latent.shape[1], need=need, model=model.ref.title)
    return latent.new_zeros((latent.shape[0], need, *latent.shape[2:]))
