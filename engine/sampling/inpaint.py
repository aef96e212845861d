"""Inpainting with any sampler and any model: outside the mask, the picture that was there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.families.parts.patch import Patch
from engine.families.parts.schedule import Schedule
from engine.sampling.conditioning import repeat_to_batch
from engine.sampling.denoiser import GuidedDenoiser


def fit_mask(mask: Tensor, latent: Tensor) -> Tensor:
    """A noise_mask of any size -> (batch, 1, height, width) of the latent, 1 where it is to be made anew."""
    mask = mask.to(latent).reshape(-1, 1, *mask.shape[-2:])
    mask = torch.nn.functional.interpolate(mask, size=latent.shape[-2:], mode="bilinear", align_corners=False)
    return repeat_to_batch(mask, latent.shape[0])


class Masked:
    """A GuidedDenoiser that sees the given latent with its noise outside the mask, and answers with it there."""

    def __init__(
        self,
        denoiser: GuidedDenoiser,
        schedule: Schedule,
        mask: Tensor,
        latent: Tensor,
        noise: Tensor,
        *,
        patches: Sequence[Patch] = (),
        sigmas: Sequence[float] = (),
    ) -> None:
        self.denoiser = denoiser
        self.schedule = schedule
        self.mask = mask
        self.latent = latent
        self.noise = noise
        self.patches = patches
        self.sigmas = sigmas

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        mask = self._mask(sigma)
        return self._keep(self.denoiser(self._seen(x, sigma, mask), sigma), mask)

    def with_uncond(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        mask = self._mask(sigma)
        denoised, uncond = self.denoiser.with_uncond(self._seen(x, sigma, mask), sigma)
        return self._keep(denoised, mask), uncond

    def _mask(self, sigma: float) -> Tensor:
        mask = self.mask
        for patch in self.patches:
            if patch.mask is not None:
                mask = patch.mask(mask, self.schedule, sigma, self.sigmas)
        return mask

    def _seen(self, x: Tensor, sigma: float, mask: Tensor) -> Tensor:
        return x * mask + self.schedule.add_noise(self.latent, self.noise, sigma) * (1 - mask)

    def _keep(self, denoised: Tensor, mask: Tensor) -> Tensor:
        return denoised * mask + self.latent * (1 - mask)
