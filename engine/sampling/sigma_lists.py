"""Lists of sigmas that need no schedule of a model: from formulas, from published tables, and made of other lists."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from engine.errors import GraphError
from engine.families.parts.schedule import FlowSchedule

# Align Your Steps (https://arxiv.org/abs/2404.14507): optimised levels of 10 steps, as its authors published them.
ALIGN_YOUR_STEPS: Mapping[str, tuple[float, ...]] = {
    "SD1": (
        14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092, 0.9642583904, 0.6523686016,
        0.3977456272, 0.1515232662, 0.0291671582,
    ),
    "SDXL": (
        14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141, 0.5550693289, 0.3798540708,
        0.2332364134, 0.1114188177, 0.0291671582,
    ),
    "SVD": (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
}  # fmt: skip
# Optimal Stepsize for Diffusion Sampling (https://arxiv.org/abs/2503.21774).
OPTIMAL_STEPS: Mapping[str, tuple[float, ...]] = {
    "FLUX": (0.9968, 0.9886, 0.9819, 0.975, 0.966, 0.9471, 0.9158, 0.8287, 0.5512, 0.2808, 0.001),
    "Wan": (
        1.0, 0.997, 0.995, 0.993, 0.991, 0.989, 0.987, 0.985, 0.98, 0.975, 0.973, 0.968, 0.96, 0.946, 0.927, 0.902,
        0.864, 0.776, 0.539, 0.208, 0.001,
    ),
    "Chroma": (
        0.992, 0.99, 0.988, 0.985, 0.982, 0.978, 0.973, 0.968, 0.961, 0.953, 0.943, 0.931, 0.917, 0.9, 0.881, 0.858,
        0.832, 0.802, 0.769, 0.731, 0.69, 0.646, 0.599, 0.55, 0.501, 0.451, 0.402, 0.355, 0.311, 0.27, 0.232, 0.199,
        0.169, 0.143, 0.12, 0.101, 0.084, 0.07, 0.058, 0.048, 0.001,
    ),
}  # fmt: skip

SPACINGS: Mapping[str, Callable[[float], float]] = {
    "linear": lambda part: part,
    "cosine": lambda part: math.sin(part * math.pi / 2),
    "sine": lambda part: 1 - math.cos(part * math.pi / 2),
}


class NotPositive(GraphError):
    en = "{name} must be above 0 for a {scheduler} list of sigmas, but it is {value:g}."
    zh = "{scheduler} sigma 列表要求 {name} 大于 0，但它为 {value:g}。"


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> list[float]:
    """Karras et al. 2022 (https://arxiv.org/abs/2206.00364), eq. 5."""
    above_zero("Karras", rho=rho)
    ramp = torch.linspace(0, 1, steps)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return [*((high + ramp * (low - high)) ** rho).tolist(), 0.0]


def exponential_sigmas(steps: int, sigma_min: float, sigma_max: float) -> list[float]:
    """Evenly spaced in log sigma."""
    above_zero("exponential", sigma_min=sigma_min, sigma_max=sigma_max)
    return [*torch.linspace(math.log(sigma_max), math.log(sigma_min), steps).exp().tolist(), 0.0]


def polyexponential_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float = 1.0) -> list[float]:
    """A polynomial of degree rho in log sigma; rho 1 is exponential."""
    above_zero("polyexponential", sigma_min=sigma_min, sigma_max=sigma_max)
    ramp = torch.linspace(1, 0, steps) ** rho
    low, high = math.log(sigma_min), math.log(sigma_max)
    return [*(ramp * (high - low) + low).exp().tolist(), 0.0]


def laplace_sigmas(steps: int, sigma_min: float, sigma_max: float, mu: float = 0.0, beta: float = 0.5) -> list[float]:
    """Quantiles of a Laplace distribution of log sigma (https://arxiv.org/abs/2407.03297), dense at exp(mu). The last
    one is sigma_min or above: there is no 0."""
    offset = 0.5 - torch.linspace(0, 1, steps)
    log_sigma = mu - beta * offset.sign() * (1 - 2 * offset.abs() + 1e-5).log()
    return log_sigma.exp().clamp(sigma_min, sigma_max).tolist()


def vp_sigmas(steps: int, beta_d: float = 19.9, beta_min: float = 0.1, eps_s: float = 1e-3) -> list[float]:
    """The VP SDE of https://arxiv.org/abs/2011.13456 at evenly spaced times from 1 to eps_s."""
    t = torch.linspace(1, eps_s, steps)
    return [*(beta_d * t**2 / 2 + beta_min * t).expm1().sqrt().tolist(), 0.0]


def table_sigmas(table: Sequence[float], steps: int, denoise: float = 1.0) -> list[float]:
    """A published table for that number of steps, between its entries log-linear; its last entry becomes 0. denoise
    below 1 takes the last part of the list."""
    if denoise <= 0:
        return []
    sigmas = list(table)
    if len(sigmas) != steps + 1:
        sigmas = loglinear(sigmas, steps + 1)
    taken = steps if denoise >= 1 else round(steps * denoise)
    return [*sigmas[-(taken + 1) :][:-1], 0.0]


def shifted_sigmas(steps: int, mu: float, terminal: float | None) -> list[float]:
    """Even times from 1 to 0, shifted by exp(mu) (https://arxiv.org/abs/2403.03206, eq. 23). terminal: what the last
    one above 0 becomes, the others stretched away from 1 with it (LTX-Video, Lightricks, Apache-2.0)."""
    sigmas = [FlowSchedule.flux(mu).shifted(1 - i / steps) for i in range(steps)]
    if terminal is not None and sigmas[-1] < 1:
        scale = (1 - terminal) / (1 - sigmas[-1])
        sigmas = [1 - (1 - sigma) * scale for sigma in sigmas]
    return [*sigmas, 0.0]


def loglinear(sigmas: Sequence[float], count: int) -> list[float]:
    """As many sigmas between the same ends, by linear interpolation of their logarithms."""
    positions = np.linspace(0, 1, len(sigmas))
    return np.exp(np.interp(np.linspace(0, 1, count), positions, np.log(sigmas))).tolist()


def extended(sigmas: Sequence[float], steps: int, start: float, end: float, spacing: str) -> list[float]:
    """Each step that begins between start and end (sigmas; start below 0: no bound) is divided into `steps`."""
    start = math.inf if start < 0 else start
    parts = [SPACINGS[spacing](k / steps) for k in range(1, steps)]
    out: list[float] = []
    for here, there in itertools.pairwise(sigmas):
        out.append(here)
        if end <= here <= start:
            out.extend(here + part * (there - here) for part in parts)
    return [*out, *sigmas[-1:]]


def above_zero(scheduler: str, **values: float) -> None:
    for name, value in values.items():
        if value <= 0:
            raise NotPositive(scheduler=scheduler, name=name, value=value)
