"""Inpainting with any sampler and any model: outside the mask, the picture that was there."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.sampling.conditioning import repeat_to_batch
from engine.sampling.denoiser import GuidedDenoiser


def fit_mask(mask: Tensor, latent: Tensor) -> Tensor:
    """A noise_mask of any size -> (batch, 1, height, width) of the latent, 1 where it is to be made anew."""
    mask = mask.to(latent).reshape(-1, 1, *mask.shape[-2:])
    mask = torch.nn.functional.interpolate(mask, size=latent.shape[-2:], mode="bilinear", align_corners=False)
    return repeat_to_batch(mask, latent.shape[0])


class Masked:
    """A GuidedDenoiser that sees the given latent with its noise outside the mask, and answers with it there."""

    def __init__(self, denoiser: GuidedDenoiser, mask: Tensor, latent: Tensor, noise: Tensor) -> None:
        self.denoiser = denoiser
        self.mask = mask
        self.latent = latent
        self.noise = noise

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return self._keep(self.denoiser(self._seen(x, sigma), sigma))

    def with_uncond(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        denoised, uncond = self.denoiser.with_uncond(self._seen(x, sigma), sigma)
        return self._keep(denoised), uncond

    def _seen(self, x: Tensor, sigma: float) -> Tensor:
        return x * self.mask + (self.latent + self.noise * sigma) * (1 - self.mask)

    def _keep(self, denoised: Tensor) -> Tensor:
        return denoised * self.mask + self.latent * (1 - self.mask)
