"""`comfy.sample`: sampling as functions, on the studio's samplers. Latents go in and come out in the VAE's scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from engine.custom.facade import within_a_call
from engine.families.base import Model
from engine.sampling.denoiser import Step, silent
from engine.sampling.guiders import cfg_guider
from engine.sampling.model import schedule_of
from engine.sampling.noise import Noise, initial_noise
from engine.sampling.run import fit_channels
from engine.sampling.run import sample as run
from engine.sampling.samplers.table import SAMPLERS, Sampler
from engine.sampling.schedulers import sigmas_for

Callback = Callable[[int, Tensor, Tensor, int], None]


@dataclass(frozen=True)
class GivenNoise(Noise):
    """Noise that a pack has made. `seed` is what is added on the way."""

    tensor: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)

    def draw(self, latent: Tensor, batch_index: Sequence[int] | None = None) -> Tensor:
        return self.tensor.expand(latent.shape).float().cpu()


def prepare_noise(latent_image: Tensor, seed: int, noise_inds: Any = None) -> Tensor:
    """What KSampler starts with, on the CPU."""
    return initial_noise(latent_image, seed, None if noise_inds is None else [int(index) for index in noise_inds])


def fix_empty_latent_channels(model: Model, latent_image: Tensor, *_: Any) -> Tensor:
    """An empty latent with the model's number of channels."""
    return fit_channels(latent_image, model)


def sample(
    model: Model,
    noise: Tensor,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Any,
    negative: Any,
    latent_image: Tensor,
    denoise: float = 1.0,
    disable_noise: bool = False,
    start_step: int | None = None,
    last_step: int | None = None,
    force_full_denoise: bool = False,
    noise_mask: Tensor | None = None,
    sigmas: Tensor | None = None,
    callback: Callback | None = None,
    disable_pbar: bool = False,
    seed: int | None = None,
) -> Tensor:
    listed = (
        sigmas_for(schedule_of(model), scheduler, steps, denoise=denoise, sampler_name=sampler_name)
        if sigmas is None
        else sigmas.tolist()
    )
    if last_step is not None and last_step < len(listed) - 1:
        listed = listed[: last_step + 1]
        if force_full_denoise:
            listed[-1] = 0.0
    if start_step is not None:
        listed = listed[start_step:] if start_step < len(listed) - 1 else []
    drawn = torch.zeros_like(noise) if disable_noise else noise
    guided = (positive, negative, latent_image)
    return _sampled(model, drawn, cfg, SAMPLERS[sampler_name], listed, *guided, noise_mask, callback, seed)


def sample_custom(
    model: Model,
    noise: Tensor,
    cfg: float,
    sampler: Sampler,
    sigmas: Tensor,
    positive: Any,
    negative: Any,
    latent_image: Tensor,
    noise_mask: Tensor | None = None,
    callback: Callback | None = None,
    disable_pbar: bool = False,
    seed: int | None = None,
) -> Tensor:
    guided = (positive, negative, latent_image)
    return _sampled(model, noise, cfg, sampler, sigmas.tolist(), *guided, noise_mask, callback, seed)


def _sampled(
    model: Model,
    noise: Tensor,
    cfg: float,
    sampler: Sampler,
    sigmas: list[float],
    positive: Any,
    negative: Any,
    latent_image: Tensor,
    noise_mask: Tensor | None,
    callback: Callback | None,
    seed: int | None,
) -> Tensor:
    call = within_a_call("comfy.sample")

    def heard(step: Step) -> None:
        if callback is not None:
            callback(step.index, step.denoised, step.x, step.total)

    return run(
        call.models,
        cfg_guider(model, positive, negative, cfg),
        sampler=sampler,
        sigmas=sigmas,
        noise=GivenNoise(seed or 0, tensor=noise),
        latent=latent_image,
        noise_mask=noise_mask,
        callback=heard if callback is not None else silent,
        interrupt_check=call.interrupt_check,
    ).latent
