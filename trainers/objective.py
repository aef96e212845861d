"""What a step minimises: noise, timesteps, targets and weights of diffusion training. Pure functions over tensors.

Ho et al. (arXiv:2006.11239) for eps, Salimans and Ho (arXiv:2202.00512) for v, Hang et al. (arXiv:2303.09556) for
min-SNR.
"""

from __future__ import annotations

import torch

from engine.families.base import Prediction
from trainers.seeds import generator


def draw_timesteps(seed: int, step: int, count: int, total: int, *, stratified: bool) -> torch.Tensor:
    """(count,) int64 in 0..total-1 for all pictures of a step. Stratified: one from each of `count` equal parts, in an
    order of its own, so that no place in the batch (prior pictures come last) gets only the noisy ones."""
    g = generator(seed, "timesteps", step)
    u = torch.rand(count, generator=g, dtype=torch.float64)
    if stratified:
        u = (torch.randperm(count, generator=g) + u) / count
    return (u * total).long().clamp_(max=total - 1)


def draw_noise(seed: int, step: int, slot: int, shape: torch.Size, noise_offset: float = 0.0) -> torch.Tensor:
    """Noise of one picture, (c, h, w) float32 on the CPU; noise_offset adds a constant a channel."""
    g = generator(seed, "noise", step, slot)
    noise = torch.randn(shape, generator=g)
    if noise_offset:
        noise += noise_offset * torch.randn((shape[0], 1, 1), generator=g)
    return noise


def add_noise(x0: torch.Tensor, noise: torch.Tensor, alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """x_t = sqrt(a) x0 + sqrt(1 - a) noise, with a (batch,) = alphas_cumprod[t]."""
    a = alphas_cumprod[:, None, None, None]
    return a.sqrt() * x0 + (1 - a).sqrt() * noise


def target(prediction: Prediction, x0: torch.Tensor, noise: torch.Tensor, alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """What the denoiser should say: eps, or v = sqrt(a) noise - sqrt(1 - a) x0."""
    if prediction == "eps":
        return noise
    a = alphas_cumprod[:, None, None, None]
    return a.sqrt() * noise - (1 - a).sqrt() * x0


def loss_weight(
    prediction: Prediction, alphas_cumprod: torch.Tensor, min_snr_gamma: float, v_pred_like_loss: float = 0.0
) -> torch.Tensor:
    """(batch,) weights: min(snr, gamma) / snr for eps and min(snr, gamma) / (snr + 1) for v where gamma is not 0.

    v_pred_like_loss adds that share of v's own weight 1 / snr to eps (bounded at 50), which otherwise hardly hears what
    the noisiest steps decide: large shapes and colours.
    """
    snr = alphas_cumprod / (1 - alphas_cumprod)
    weight = torch.ones_like(snr)
    if min_snr_gamma:
        weight = snr.clamp(max=min_snr_gamma) / (snr if prediction == "eps" else snr + 1)
    if v_pred_like_loss and prediction == "eps":
        weight = weight * (1 + v_pred_like_loss / (snr + 0.02))
    return weight
