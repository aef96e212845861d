"""Samplers that put fresh noise on an estimate of the clean latent at every step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from torch import Tensor

from engine.sampling.denoiser import Callback, Denoiser, NoiseSource, SizedNoise, Step, silent
from engine.sampling.samplers.euler import no_mixing, slope


def sample_lcm(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: list[float],
    *,
    callback: Callback = silent,
    noise: NoiseSource,
    alpha: Callable[[float], float] = no_mixing,
) -> Tensor:
    """Multistep consistency sampling (https://arxiv.org/abs/2303.01469, algorithm 1; LCM, 2310.04378). alpha: the clean
    latent's part of x at a sigma."""
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        callback(Step(i, len(sigmas) - 1, sigma, x, denoised))
        x = denoised
        if sigma_next > 0:
            x = x * alpha(sigma_next) + noise(sigma, sigma_next) * sigma_next
    return x


def sample_lcm_upscale(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: list[float],
    *,
    callback: Callback = silent,
    noise: SizedNoise,
    alpha: Callable[[float], float] = no_mixing,
    resize: Callable[[Tensor, int, int], Tensor],
    scale: float = 1.0,
    scale_steps: int | None = None,
) -> Tensor:
    """sample_lcm whose estimates grow evenly to `scale` times their height and width over the first scale_steps steps
    (None: the first half). resize(latent, width, height). The last step's estimate is not resized any more."""
    steps = len(sigmas) - 1
    growing = min(math.ceil(steps / 2) if scale_steps is None else scale_steps, steps - 1)
    height, width = x.shape[-2:]
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        callback(Step(i, steps, sigma, x, denoised))
        x = denoised
        if i < growing:
            factor = 1 + (scale - 1) * (i + 1) / growing
            x = resize(x, max(1, round(width * factor)), max(1, round(height * factor)))
        if sigma_next > 0:
            x = x * alpha(sigma_next) + noise.like(x) * sigma_next
    return x


def sample_ddpm(
    denoiser: Denoiser, x: Tensor, sigmas: list[float], *, callback: Callback = silent, noise: NoiseSource
) -> Tensor:
    """DDPM (https://arxiv.org/abs/2006.11239), algorithm 2, for any list of sigmas: its mean and posterior variance."""
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        callback(Step(i, len(sigmas) - 1, sigma, x, denoised))
        abar, abar_next = 1 / (sigma**2 + 1), 1 / (sigma_next**2 + 1)
        alpha = abar / abar_next
        eps = slope(x, sigma, denoised)
        x = (x * math.sqrt(abar) - eps * ((1 - alpha) / math.sqrt(1 - abar))) / math.sqrt(alpha)
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * math.sqrt((1 - alpha) * (1 - abar_next) / (1 - abar))
            x = x * math.sqrt(1 + sigma_next**2)
    return x
