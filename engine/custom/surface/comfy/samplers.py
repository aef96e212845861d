"""`comfy.samplers`: the names to choose from, sigmas, and sampling as functions and as an object."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.custom.links import missing
from engine.custom.links.sampler import PackSampler
from engine.custom.links.sampling import ModelSampling
from engine.custom.surface.comfy import sample as _sample
from engine.families.base import Model
from engine.sampling.model import schedule_of
from engine.sampling.names import SAMPLERS, SCHEDULERS
from engine.sampling.samplers.table import SAMPLERS as _SAMPLERS
from engine.sampling.samplers.table import Sampler
from engine.sampling.schedulers import SCHEDULERS as _SCHEDULERS
from engine.sampling.schedulers import sigmas_for

SAMPLER_NAMES = KSAMPLER_NAMES = list(SAMPLERS)
SCHEDULER_NAMES = list(SCHEDULERS)
KSAMPLER = PackSampler  # a sampler of a function of the pack's own
samplers = SAMPLER_NAMES
schedulers = SCHEDULER_NAMES


def __getattr__(name: str) -> Any:
    raise missing(
        "comfy.samplers",
        name,
        "KSampler, KSAMPLER, SAMPLER_NAMES, SCHEDULER_NAMES, calculate_sigmas, sampler_object, ksampler, sample",
    )


def calculate_sigmas(model_sampling: ModelSampling, scheduler_name: str, steps: int) -> Tensor:
    """(about steps + 1,) from noisy to clean"""
    return torch.tensor(_SCHEDULERS[scheduler_name](model_sampling.schedule, steps))


def sampler_object(name: str) -> Sampler:
    return _SAMPLERS[name]


def ksampler(
    sampler_name: str, extra_options: dict[str, Any] | None = None, inpaint_options: dict[str, Any] | None = None
) -> Sampler:
    if inpaint_options:
        raise ValueError(f"comfy.samplers.ksampler: inpaint_options ({', '.join(inpaint_options)}) are not offered")
    return _SAMPLERS[sampler_name].having(**(extra_options or {}))


def sample(
    model: Model,
    noise: Tensor,
    positive: Any,
    negative: Any,
    cfg: float,
    device: Any,
    sampler: Sampler,
    sigmas: Tensor,
    model_options: Any = None,
    latent_image: Tensor | None = None,
    denoise_mask: Tensor | None = None,
    callback: Any = None,
    disable_pbar: bool = False,
    seed: int | None = None,
) -> Tensor:
    latent = torch.zeros_like(noise) if latent_image is None else latent_image
    return _sample.sample_custom(
        model, noise, cfg, sampler, sigmas, positive, negative, latent, denoise_mask, callback, seed=seed
    )


class KSampler:
    SAMPLERS = SAMPLER_NAMES
    SCHEDULERS = SCHEDULER_NAMES

    def __init__(
        self,
        model: Model,
        steps: int,
        device: Any = None,
        sampler: str | None = None,
        scheduler: str | None = None,
        denoise: float | None = None,
        model_options: Any = None,
    ) -> None:
        self.model = model
        self.steps = steps
        self.sampler = sampler or SAMPLER_NAMES[0]
        self.scheduler = scheduler or SCHEDULER_NAMES[0]
        self.denoise = 1.0 if denoise is None else denoise

    @property
    def sigmas(self) -> Tensor:
        schedule = schedule_of(self.model)
        found = sigmas_for(schedule, self.scheduler, self.steps, denoise=self.denoise, sampler_name=self.sampler)
        return torch.tensor(found)

    def sample(
        self,
        noise: Tensor,
        positive: Any,
        negative: Any,
        cfg: float,
        latent_image: Tensor | None = None,
        start_step: int | None = None,
        last_step: int | None = None,
        force_full_denoise: bool = False,
        denoise_mask: Tensor | None = None,
        sigmas: Tensor | None = None,
        callback: Any = None,
        disable_pbar: bool = False,
        seed: int | None = None,
    ) -> Tensor:
        latent = torch.zeros_like(noise) if latent_image is None else latent_image
        return _sample.sample(
            self.model, noise, self.steps, cfg, self.sampler, self.scheduler, positive, negative, latent,
            start_step=start_step, last_step=last_step, force_full_denoise=force_full_denoise, noise_mask=denoise_mask,
            sigmas=self.sigmas if sigmas is None else sigmas, callback=callback, seed=seed,
        )  # fmt: skip
