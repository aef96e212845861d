"""Euler's method and its second-order relatives, on dx/dsigma = (x - denoised(x, sigma)) / sigma.

The forms are those of k-diffusion (MIT, Katherine Crowson), whose names the field uses.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from torch import Tensor

from engine.sampling.denoiser import Callback, Denoiser, GuidedDenoiser, NoiseSource, Step, silent


def ancestral_step(sigma: float, sigma_next: float, eta: float) -> tuple[float, float]:
    """(sigma_down, sigma_up): step down to sigma_down, then add noise of sigma_up to arrive at sigma_next.

    sigma_down^2 + sigma_up^2 = sigma_next^2; eta 1 is DDPM's posterior variance, eta 0 has no noise.
    """
    if not eta:
        return sigma_next, 0.0
    sigma_up = min(sigma_next, eta * sigma_next * math.sqrt(1 - (sigma_next / sigma) ** 2))
    return math.sqrt(sigma_next**2 - sigma_up**2), sigma_up


# (sigma, sigma_next, eta) -> (sigma_down, scale, sigma_up): step down to sigma_down, multiply by scale, add noise of
# sigma_up to arrive at sigma_next. flow.py has that of flow models.
Ancestral = Callable[[float, float, float], tuple[float, float, float]]


def exploding_step(sigma: float, sigma_next: float, eta: float) -> tuple[float, float, float]:
    """The `Ancestral` step where alpha is 1: nothing is scaled."""
    sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
    return sigma_down, 1.0, sigma_up


def no_mixing(sigma: float) -> float:
    """The clean latent's part of x in k-diffusion's scale."""
    return 1.0


def slope(x: Tensor, sigma: float, denoised: Tensor) -> Tensor:
    """dx/dsigma of the probability flow ODE (Karras et al. 2022, eq. 3 with s = 1)."""
    return (x - denoised) / sigma


def geometric_mean(a: float, b: float) -> float:
    return math.exp((math.log(a) + math.log(b)) / 2)


def sample_euler(
    denoiser: Denoiser, x: Tensor, sigmas: list[float], *, callback: Callback = silent, noise: NoiseSource
) -> Tensor:
    """Euler steps: Karras et al. 2022 (https://arxiv.org/abs/2206.00364), algorithm 2 without correction and churn."""
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        callback(Step(i, len(sigmas) - 1, sigma, x, denoised))
        x = x + slope(x, sigma, denoised) * (sigma_next - sigma)
    return x


def sample_euler_ancestral(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: list[float],
    *,
    callback: Callback = silent,
    noise: NoiseSource,
    eta: float = 1.0,
    s_noise: float = 1.0,
    ancestral: Ancestral = exploding_step,
) -> Tensor:
    """Euler steps to a lower sigma, noise back up: DDPM's ancestral sampling in k-diffusion's form."""
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        callback(Step(i, len(sigmas) - 1, sigma, x, denoised))
        if sigma_next == 0:
            return denoised
        sigma_down, scale, sigma_up = ancestral(sigma, sigma_next, eta)
        x = (x + slope(x, sigma, denoised) * (sigma_down - sigma)) * scale
        if sigma_up:
            x = x + noise(sigma, sigma_next) * (s_noise * sigma_up)
    return x


def sample_euler_cfg_pp(
    denoiser: GuidedDenoiser,
    x: Tensor,
    sigmas: list[float],
    *,
    callback: Callback = silent,
    noise: NoiseSource,
    alpha: Callable[[float], float] = no_mixing,
) -> Tensor:
    """CFG++ (https://arxiv.org/abs/2406.08070): from the guided estimate along the unconditional direction."""
    return sample_euler_ancestral_cfg_pp(denoiser, x, sigmas, callback=callback, noise=noise, eta=0.0, alpha=alpha)


def sample_euler_ancestral_cfg_pp(
    denoiser: GuidedDenoiser,
    x: Tensor,
    sigmas: list[float],
    *,
    callback: Callback = silent,
    noise: NoiseSource,
    eta: float = 1.0,
    s_noise: float = 1.0,
    alpha: Callable[[float], float] = no_mixing,
) -> Tensor:
    """Ancestral steps of CFG++ (https://arxiv.org/abs/2406.08070). alpha: the clean latent's part of x at a sigma;
    steps are those of the ratio sigma / alpha."""
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised, uncond = denoiser.with_uncond(x, sigma)
        callback(Step(i, len(sigmas) - 1, sigma, x, denoised))
        part, part_next = alpha(sigma), alpha(sigma_next)
        sigma_down, sigma_up = ancestral_step(sigma / part if part else math.inf, sigma_next / part_next, eta)
        x = (denoised + slope(x, sigma, uncond * part) * sigma_down) * part_next
        if sigma_up:
            x = x + noise(sigma, sigma_next) * (s_noise * sigma_up * part_next)
    return x


def sample_heun(
    denoiser: Denoiser, x: Tensor, sigmas: list[float], *, callback: Callback = silent, noise: NoiseSource
) -> Tensor:
    """Heun's method: Karras et al. 2022 (https://arxiv.org/abs/2206.00364), algorithm 2 without churn."""
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        callback(Step(i, len(sigmas) - 1, sigma, x, denoised))
        d, dt = slope(x, sigma, denoised), sigma_next - sigma
        if sigma_next == 0:
            x = x + d * dt
            continue
        x_2 = x + d * dt
        d_2 = slope(x_2, sigma_next, denoiser(x_2, sigma_next))
        x = x + (d + d_2) / 2 * dt
    return x


def sample_heunpp2(
    denoiser: Denoiser, x: Tensor, sigmas: list[float], *, callback: Callback = silent, noise: NoiseSource
) -> Tensor:
    """Heun++: slopes of up to two further steps, weighted by their sigmas (OpenDiffusion's form).

    The last step is Euler's, the one before it looks one step ahead, all others two.
    """
    end = sigmas[-1]
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        callback(Step(i, len(sigmas) - 1, sigma, x, denoised))
        d, dt = slope(x, sigma, denoised), sigma_next - sigma
        if sigma_next == end:
            x = x + d * dt
            continue
        x_2 = x + d * dt
        d_2 = slope(x_2, sigma_next, denoiser(x_2, sigma_next))
        sigma_after = sigmas[i + 2]
        if sigma_after == end:
            w_2 = sigma_next / (2 * sigmas[0])
            x = x + (d * (1 - w_2) + d_2 * w_2) * dt
            continue
        x_3 = x_2 + d_2 * (sigma_after - sigma_next)
        d_3 = slope(x_3, sigma_after, denoiser(x_3, sigma_after))
        w_2, w_3 = sigma_next / (3 * sigmas[0]), sigma_after / (3 * sigmas[0])
        x = x + (d * (1 - w_2 - w_3) + d_2 * w_2 + d_3 * w_3) * dt
    return x


def sample_dpm_2(
    denoiser: Denoiser, x: Tensor, sigmas: list[float], *, callback: Callback = silent, noise: NoiseSource
) -> Tensor:
    """DPM-Solver-2 (https://arxiv.org/abs/2206.00927) as Karras et al. 2022 put it: midpoint steps in log sigma."""
    return sample_dpm_2_ancestral(denoiser, x, sigmas, callback=callback, noise=noise, eta=0.0)


def sample_dpm_2_ancestral(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: list[float],
    *,
    callback: Callback = silent,
    noise: NoiseSource,
    eta: float = 1.0,
    s_noise: float = 1.0,
    ancestral: Ancestral = exploding_step,
) -> Tensor:
    """Ancestral sampling with the second-order steps of DPM-Solver-2 (https://arxiv.org/abs/2206.00927). A large eta
    may leave no way down for a midpoint: that step is Euler's."""
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        callback(Step(i, len(sigmas) - 1, sigma, x, denoised))
        if sigma_next == 0:
            return denoised
        sigma_down, scale, sigma_up = ancestral(sigma, sigma_next, eta)
        d = slope(x, sigma, denoised)
        if sigma_down > 0:
            sigma_mid = geometric_mean(sigma, sigma_down)
            x_2 = x + d * (sigma_mid - sigma)
            d = slope(x_2, sigma_mid, denoiser(x_2, sigma_mid))
        x = (x + d * (sigma_down - sigma)) * scale
        if sigma_up:
            x = x + noise(sigma, sigma_next) * (s_noise * sigma_up)
    return x
