"""DPM-Solver++ (https://arxiv.org/abs/2211.01095) and its SDE forms, in t = -log sigma.

In that time an exact step for a constant denoised is x * exp(-h) - denoised * expm1(-h). The forms are those of
k-diffusion (MIT, Katherine Crowson), whose names the field uses.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from engine.sampling.denoiser import Callback, Denoiser, GuidedDenoiser, NoiseSource, Step, silent
from engine.sampling.samplers.euler import Ancestral, ancestral_step, exploding_step, geometric_mean, slope


def log_time(sigma: float) -> float:
    """t = -log sigma: half of the logarithm of the signal to noise ratio."""
    return -math.log(sigma)


def between(sigma: float, sigma_next: float, r: float) -> float:
    """The sigma at the part r of the way in t, as float32 has it: a Brownian path is so rough that another rounding of
    the time gives noise that differs by 1e-4."""
    t, t_next = torch.tensor([sigma, sigma_next], dtype=torch.float32).log().neg()
    return float(torch.lerp(t, t_next, r).neg().exp())


def _towards(denoised: Tensor, x: Tensor, left: float) -> Tensor:
    """The exact step for a constant denoised, of whose way to it the part `left` = exp(-h) is left."""
    return x * left + denoised * (1 - left)


def sample_dpmpp_2m(
    denoiser: Denoiser, x: Tensor, sigmas: list[float], *, callback: Callback = silent, noise: NoiseSource
) -> Tensor:
    """DPM-Solver++(2M), https://arxiv.org/abs/2211.01095, algorithm 2."""
    old_denoised: Tensor | None = None
    h_last = 0.0
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        callback(Step(i, len(sigmas) - 1, sigma, x, denoised))
        if sigma_next == 0:
            return denoised
        h = log_time(sigma_next) - log_time(sigma)
        if old_denoised is None:
            denoised_d = denoised
        else:
            r = h_last / h
            denoised_d = denoised + (denoised - old_denoised) / (2 * r)
        x = x * math.exp(-h) - denoised_d * math.expm1(-h)
        old_denoised, h_last = denoised, h
    return x


def sample_dpmpp_2m_cfg_pp(
    denoiser: GuidedDenoiser, x: Tensor, sigmas: list[float], *, callback: Callback = silent, noise: NoiseSource
) -> Tensor:
    """DPM-Solver++(2M) with CFG++ (https://arxiv.org/abs/2406.08070, appendix)."""
    old_uncond: Tensor | None = None
    h_last = 0.0
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised, uncond = denoiser.with_uncond(x, sigma)
        callback(Step(i, len(sigmas) - 1, sigma, x, denoised))
        if sigma_next == 0:
            return denoised
        h = log_time(sigma_next) - log_time(sigma)
        step = denoised + (x - uncond) * math.exp(-h)
        if old_uncond is not None:
            r = h_last / h
            step = step - (denoised - old_uncond) * (math.expm1(-h) / (2 * r))
        x = step
        old_uncond, h_last = uncond, h
    return x


def sample_dpmpp_2s_ancestral(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: list[float],
    *,
    callback: Callback = silent,
    noise: NoiseSource,
    eta: float = 1.0,
    s_noise: float = 1.0,
    ancestral: Ancestral = exploding_step,
    middle: Callable[[float, float], float] = geometric_mean,
) -> Tensor:
    """Ancestral sampling with the steps of DPM-Solver++(2S), https://arxiv.org/abs/2211.01095, algorithm 1. middle: the
    sigma halfway in the log signal to noise ratio. A large eta may leave no way down for it: that step is Euler's."""
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        callback(Step(i, len(sigmas) - 1, sigma, x, denoised))
        if sigma_next == 0:
            return denoised
        sigma_down, scale, sigma_up = ancestral(sigma, sigma_next, eta)
        if sigma_down > 0:
            sigma_mid = middle(sigma, sigma_down)
            denoised = denoiser(_towards(denoised, x, sigma_mid / sigma), sigma_mid)
        x = _towards(denoised, x, sigma_down / sigma) * scale
        if sigma_up:
            x = x + noise(sigma, sigma_next) * (s_noise * sigma_up)
    return x


def sample_dpmpp_2s_ancestral_cfg_pp(
    denoiser: GuidedDenoiser,
    x: Tensor,
    sigmas: list[float],
    *,
    callback: Callback = silent,
    noise: NoiseSource,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Tensor:
    """DPM-Solver++(2S) ancestral steps with CFG++ (https://arxiv.org/abs/2406.08070)."""
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised, uncond = denoiser.with_uncond(x, sigma)
        callback(Step(i, len(sigmas) - 1, sigma, x, denoised))
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
        if sigma_down == 0:
            x = denoised + slope(x, sigma, uncond) * sigma_down
        else:
            h = log_time(sigma_down) - log_time(sigma)
            x_2 = (x + denoised - uncond) * math.exp(-h / 2) - denoised * math.expm1(-h / 2)
            denoised_2, uncond_2 = denoiser.with_uncond(x_2, sigma * math.exp(-h / 2))
            # ComfyUI's form mixes the guided estimate of the start with the unconditional one of the middle.
            x = (x + denoised - uncond_2) * math.exp(-h) - denoised_2 * math.expm1(-h)
        if sigma_up:
            x = x + noise(sigma, sigma_next) * (s_noise * sigma_up)
    return x


def sample_dpmpp_sde(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: list[float],
    *,
    callback: Callback = silent,
    noise: NoiseSource,
    eta: float = 1.0,
    s_noise: float = 1.0,
    r: float = 0.5,
) -> Tensor:
    """DPM-Solver++ (stochastic, two evaluations a step), https://arxiv.org/abs/2211.01095 in k-diffusion's form."""
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        callback(Step(i, len(sigmas) - 1, sigma, x, denoised))
        if sigma_next == 0:
            return denoised
        t, sigma_mid = log_time(sigma), between(sigma, sigma_next, r)

        down, up = ancestral_step(sigma, sigma_mid, eta)
        x_2 = x * (down / sigma) - denoised * math.expm1(t - log_time(down))
        x_2 = x_2 + noise(sigma, sigma_mid) * (s_noise * up)
        denoised_2 = denoiser(x_2, sigma_mid)

        down, up = ancestral_step(sigma, sigma_next, eta)
        denoised_d = denoised + (denoised_2 - denoised) / (2 * r)
        x = x * (down / sigma) - denoised_d * math.expm1(t - log_time(down))
        x = x + noise(sigma, sigma_next) * (s_noise * up)
    return x


def sample_dpmpp_2m_sde(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: list[float],
    *,
    callback: Callback = silent,
    noise: NoiseSource,
    eta: float = 1.0,
    s_noise: float = 1.0,
    solver_type: Literal["midpoint", "heun"] = "midpoint",
) -> Tensor:
    """SDE-DPM-Solver++(2M), https://arxiv.org/abs/2211.01095, appendix; eta scales the noise, 0 gives the ODE."""
    old_denoised: Tensor | None = None
    h_last = 0.0
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        callback(Step(i, len(sigmas) - 1, sigma, x, denoised))
        if sigma_next == 0:
            return denoised
        h = log_time(sigma_next) - log_time(sigma)
        h_eta = h * (eta + 1)
        x = x * math.exp(-h_eta) - denoised * math.expm1(-h_eta)
        if old_denoised is not None:
            difference = (denoised - old_denoised) * (h / h_last)
            if solver_type == "heun":
                x = x + difference * (math.expm1(-h_eta) / h_eta + 1)
            else:
                x = x - difference * (0.5 * math.expm1(-h_eta))
        if eta and s_noise:
            x = x + noise(sigma, sigma_next) * (sigma_next * math.sqrt(-math.expm1(-2 * h * eta)) * s_noise)
        old_denoised, h_last = denoised, h
    return x


def sample_dpmpp_2m_sde_heun(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: list[float],
    *,
    callback: Callback = silent,
    noise: NoiseSource,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Tensor:
    """SDE-DPM-Solver++(2M) with the Heun-like weight of the second-order term."""
    return sample_dpmpp_2m_sde(
        denoiser, x, sigmas, callback=callback, noise=noise, eta=eta, s_noise=s_noise, solver_type="heun"
    )


def sample_dpmpp_3m_sde(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: list[float],
    *,
    callback: Callback = silent,
    noise: NoiseSource,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Tensor:
    """SDE-DPM-Solver++(3M): third-order multistep of https://arxiv.org/abs/2211.01095 in k-diffusion's form."""
    denoised_1: Tensor | None = None
    denoised_2: Tensor | None = None
    h_1 = h_2 = 0.0
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        callback(Step(i, len(sigmas) - 1, sigma, x, denoised))
        if sigma_next == 0:
            return denoised
        h = log_time(sigma_next) - log_time(sigma)
        h_eta = h * (eta + 1)
        x = x * math.exp(-h_eta) - denoised * math.expm1(-h_eta)
        phi_2 = math.expm1(-h_eta) / h_eta + 1
        if denoised_1 is not None and denoised_2 is not None:
            r_0, r_1 = h_1 / h, h_2 / h
            d1_0 = (denoised - denoised_1) / r_0
            d1_1 = (denoised_1 - denoised_2) / r_1
            d1 = d1_0 + (d1_0 - d1_1) * (r_0 / (r_0 + r_1))
            d2 = (d1_0 - d1_1) / (r_0 + r_1)
            x = x + d1 * phi_2 - d2 * (phi_2 / h_eta - 0.5)
        elif denoised_1 is not None:
            x = x + (denoised - denoised_1) * (phi_2 * h / h_1)
        if eta and s_noise:
            x = x + noise(sigma, sigma_next) * (sigma_next * math.sqrt(-math.expm1(-2 * h * eta)) * s_noise)
        denoised_1, denoised_2 = denoised, denoised_1
        h_1, h_2 = h, h_1
    return x
