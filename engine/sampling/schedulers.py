"""Where a sampler looks: lists of sigmas from noisy to clean, one function a scheduler, named as in ComfyUI.

Each returns about steps + 1 sigmas, the last of them 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from engine.families.parts.schedule import Schedule
from engine.sampling.sigma_lists import above_zero, exponential_sigmas, karras_sigmas

Scheduler = Callable[[Schedule, int], list[float]]

# The midpoint of their last step would lie at sigma 0: they take one step more and leave out the last but one sigma.
DISCARD_PENULTIMATE = frozenset({"dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"})


def karras(schedule: Schedule, steps: int) -> list[float]:
    return karras_sigmas(steps, schedule.sigma_min, schedule.sigma_max)


def exponential(schedule: Schedule, steps: int) -> list[float]:
    return exponential_sigmas(steps, schedule.sigma_min, schedule.sigma_max)


def normal(schedule: Schedule, steps: int) -> list[float]:
    """Timesteps evenly spaced from the noisiest to the cleanest, both included."""
    start, end = schedule.timestep(schedule.sigma_max), schedule.timestep(schedule.sigma_min)
    if math.isclose(schedule.sigma(end), 0, abs_tol=1e-5):
        timesteps = torch.linspace(start, end, steps + 1).tolist()
        return [schedule.sigma(t) for t in timesteps]
    return [*(schedule.sigma(t) for t in torch.linspace(start, end, steps).tolist()), 0.0]


def sgm_uniform(schedule: Schedule, steps: int) -> list[float]:
    """Timesteps evenly spaced over the whole range, the cleanest left to the final 0 (Stability's sgm)."""
    start, end = schedule.timestep(schedule.sigma_max), schedule.timestep(schedule.sigma_min)
    return [*(schedule.sigma(t) for t in torch.linspace(start, end, steps + 1)[:-1].tolist()), 0.0]


def simple(schedule: Schedule, steps: int) -> list[float]:
    """Every n-th training sigma from the noisiest on."""
    stride = len(schedule.sigmas) / steps
    return [*(float(schedule.sigmas[-(1 + int(i * stride))]) for i in range(steps)), 0.0]


def ddim_uniform(schedule: Schedule, steps: int) -> list[float]:
    """Every n-th training sigma counted from the cleanest but one, as DDIM's code did; may have a step more."""
    stride = max(len(schedule.sigmas) // steps, 1)
    rising = schedule.sigmas[1::stride].tolist()
    start = [] if math.isclose(rising[0], 0, abs_tol=1e-5) else [0.0]
    return [*start, *rising][::-1]


def beta(schedule: Schedule, steps: int, alpha: float = 0.6, beta: float = 0.6) -> list[float]:
    """Timesteps at quantiles of a Beta distribution: dense at both ends (https://arxiv.org/abs/2407.12173)."""
    from scipy.stats import beta as distribution

    above_zero("Beta", alpha=alpha, beta=beta)
    quantiles = 1 - np.linspace(0, 1, steps, endpoint=False)
    timesteps = np.rint(distribution.ppf(quantiles, alpha, beta) * (len(schedule.sigmas) - 1)).astype(int).tolist()
    distinct = list(dict.fromkeys(timesteps))
    return [*(float(schedule.sigmas[t]) for t in distinct), 0.0]


def linear_quadratic(schedule: Schedule, steps: int, threshold_noise: float = 0.025) -> list[float]:
    """Linear in the first half until threshold_noise is gone, then quadratic (Movie Gen and Genmo's Mochi)."""
    if steps == 1:
        return [schedule.sigma_max, 0.0]
    linear = steps // 2
    quadratic = steps - linear
    rest = linear - threshold_noise * steps
    a = rest / (linear * quadratic**2)
    b = threshold_noise / linear - 2 * rest / quadratic**2
    c = a * linear**2
    done = [i * threshold_noise / linear for i in range(linear)] + [a * i**2 + b * i + c for i in range(linear, steps)]
    return [*((1 - d) * schedule.sigma_max for d in done), 0.0]


def kl_optimal(schedule: Schedule, steps: int) -> list[float]:
    """Evenly spaced in arctan sigma: Align Your Steps (https://arxiv.org/abs/2404.14507), theorem 3.1."""
    if steps == 1:
        return [schedule.sigma_max, 0.0]
    high, low = math.atan(schedule.sigma_max), math.atan(schedule.sigma_min)
    return [*(math.tan(high + (low - high) * i / (steps - 1)) for i in range(steps)), 0.0]


SCHEDULERS: dict[str, Scheduler] = {
    "simple": simple,
    "sgm_uniform": sgm_uniform,
    "karras": karras,
    "exponential": exponential,
    "ddim_uniform": ddim_uniform,
    "beta": beta,
    "normal": normal,
    "linear_quadratic": linear_quadratic,
    "kl_optimal": kl_optimal,
}


def sigmas_for(
    schedule: Schedule, scheduler: str, steps: int, *, denoise: float = 1.0, sampler_name: str = ""
) -> list[float]:
    """The sigmas of a sampling run of `steps` steps.

    denoise below 1 starts in the middle: the schedule of steps / denoise steps, its last `steps` steps. 0: none.
    """
    if denoise <= 0:
        return []
    total = steps if denoise > 0.9999 else int(steps / denoise)
    if sampler_name in DISCARD_PENULTIMATE:
        sigmas = SCHEDULERS[scheduler](schedule, total + 1)
        sigmas = [*sigmas[:-2], sigmas[-1]]
    else:
        sigmas = SCHEDULERS[scheduler](schedule, total)
    return sigmas if total == steps else sigmas[-(steps + 1) :]


def basic_sigmas(schedule: Schedule, scheduler: str, steps: int, denoise: float) -> list[float]:
    """What a scheduler node gives: at most `steps` steps, the last ones of steps / denoise; no rule of a sampler."""
    if denoise <= 0:
        return []
    return SCHEDULERS[scheduler](schedule, steps if denoise >= 1 else int(steps / denoise))[-(steps + 1) :]
