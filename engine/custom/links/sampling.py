"""`model_sampling` and `latent_format` of a model, as packs ask for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.custom.links import missing, public
from engine.families.base import LatentFormat, Prediction
from engine.families.parts.schedule import Schedule
from engine.sampling.prediction import PREDICTIONS


class ModelSampling:
    """How noisy the training was. Sigmas go in and come out as tensors of any shape."""

    def __init__(self, schedule: Schedule, prediction: Prediction) -> None:
        self.schedule = schedule
        self.prediction: Prediction = prediction

    @property
    def sigmas(self) -> Tensor:
        """(n,) rising, float32 on the CPU"""
        return self.schedule.sigmas

    @property
    def sigma_min(self) -> Tensor:
        return torch.tensor(self.schedule.sigma_min)

    @property
    def sigma_max(self) -> Tensor:
        return torch.tensor(self.schedule.sigma_max)

    @property
    def sigma_data(self) -> float:
        return 1.0

    @property
    def shift(self) -> float:
        """Of flow models."""
        return float(getattr(self.schedule, "shift", 1.0))

    def timestep(self, sigma: Any) -> Tensor:
        return _each(sigma, self.schedule.timestep)

    def sigma(self, timestep: Any) -> Tensor:
        return _each(timestep, self.schedule.sigma)

    def percent_to_sigma(self, percent: float) -> float:
        """999999999.9 stands for "above every sigma", as packs know it."""
        return min(self.schedule.percent_to_sigma(percent), 999999999.9)

    def noise_scaling(self, sigma: Any, noise: Tensor, latent_image: Tensor, max_denoise: bool = False) -> Tensor:
        return self.schedule.add_noise(latent_image, noise, _one(sigma), max_denoise)

    def inverse_noise_scaling(self, sigma: Any, latent: Tensor) -> Tensor:
        return self.schedule.finish(latent, _one(sigma))

    def calculate_input(self, sigma: Any, noise: Tensor) -> Tensor:
        return PREDICTIONS[self.prediction].input(noise, _one(sigma))

    def calculate_denoised(self, sigma: Any, model_output: Tensor, model_input: Tensor) -> Tensor:
        """model_input: x, before calculate_input."""
        one = _one(sigma)
        return PREDICTIONS[self.prediction].denoised(model_input, model_output, one, self.schedule.timestep(one))

    def __getattr__(self, name: str) -> Any:
        raise missing("model_sampling", name, public(ModelSampling))


class PackLatentFormat:
    """How latents of a VAE and those of the denoiser differ."""

    latent_dimensions = 2

    def __init__(self, latent: LatentFormat, factor: int = 8) -> None:
        self.latent = latent
        self.spacial_downscale_ratio = factor

    @property
    def latent_channels(self) -> int:
        return self.latent.channels

    @property
    def scale_factor(self) -> float:
        return self.latent.scale

    @property
    def shift_factor(self) -> float:
        return self.latent.shift

    @property
    def latent_rgb_factors(self) -> list[list[float]] | None:
        return [list(row) for row in self.latent.rgb] or None

    @property
    def latent_rgb_factors_bias(self) -> list[float]:
        return list(self.latent.rgb_bias)

    def process_in(self, latent: Tensor) -> Tensor:
        return self.latent.scaled(latent)

    def process_out(self, latent: Tensor) -> Tensor:
        return self.latent.unscaled(latent)

    def __getattr__(self, name: str) -> Any:
        raise missing("latent_format", name, public(PackLatentFormat))


def _each(values: Any, function: Any) -> Tensor:
    tensor = torch.as_tensor(values, dtype=torch.float32)
    return torch.tensor([function(float(value)) for value in tensor.reshape(-1)]).reshape(tensor.shape)


def _one(sigma: Any) -> float:
    """The sigma of a batch: all rows have the same here."""
    return float(torch.as_tensor(sigma).reshape(-1)[0])
