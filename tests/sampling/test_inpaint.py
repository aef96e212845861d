"""Masks: what lies outside of them stays as it was."""

from __future__ import annotations

import torch

from engine.families.parts.schedule import DiscreteSchedule, scaled_linear_alphas_cumprod
from engine.sampling.inpaint import Masked, fit_mask
from engine.sampling.noise import initial_noise
from engine.sampling.samplers.table import SAMPLERS

from .gaussian import Gaussian, no_noise

SCHEDULE = DiscreteSchedule.from_alphas_cumprod(scaled_linear_alphas_cumprod())
LATENT = torch.full((2, 4, 8, 8), 5.0)


def test_a_mask_of_pixels_is_fitted_to_the_latent_and_its_batch() -> None:
    mask = torch.zeros(64, 64)
    mask[:, 32:] = 1
    fitted = fit_mask(mask, LATENT)
    assert fitted.shape == (2, 1, 8, 8)
    assert fitted[..., :4].eq(0).all() and fitted[..., 4:].eq(1).all()


def test_outside_the_mask_the_latent_stays_exactly() -> None:
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 4:] = 1
    noise = initial_noise(LATENT, 1)
    sigmas = [10.0, 3.0, 1.0, 0.1, 0.0]
    masked = Masked(Gaussian(), SCHEDULE, mask, LATENT, noise)
    out = SAMPLERS["euler"].function(masked, LATENT + noise * sigmas[0], sigmas, noise=no_noise)
    assert torch.allclose(out[..., :4], LATENT[..., :4], atol=1e-5)
    assert out[..., 4:].mean() < 2


def test_the_model_sees_the_latent_with_its_own_noise_outside_the_mask() -> None:
    seen = []

    class Spy(Gaussian):
        def __call__(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
            seen.append(x)
            return super().__call__(x, sigma)

    noise = initial_noise(LATENT, 1)
    Masked(Spy(), SCHEDULE, torch.zeros(1, 1, 8, 8), LATENT, noise)(torch.zeros_like(LATENT), 3.0)
    assert torch.allclose(seen[0], LATENT + 3 * noise)
