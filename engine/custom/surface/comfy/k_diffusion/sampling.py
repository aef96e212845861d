"""`comfy.k_diffusion.sampling`: lists of sigmas and the small formulas of samplers, in k-diffusion's words."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.custom.links import missing
from engine.sampling.samplers.euler import ancestral_step
from engine.sampling.sigma_lists import exponential_sigmas, karras_sigmas, polyexponential_sigmas


def __getattr__(name: str) -> Any:
    known = "get_sigmas_karras, get_sigmas_exponential, get_sigmas_polyexponential, append_zero, to_d"
    raise missing("comfy.k_diffusion.sampling", name, f"{known}, get_ancestral_step; samplers are comfy.samplers'")


def append_zero(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_zeros([1])])


def get_sigmas_karras(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0, device: Any = "cpu") -> Tensor:
    """(n + 1,) from noisy to clean"""
    return torch.tensor(karras_sigmas(n, float(sigma_min), float(sigma_max), rho), device=device)


def get_sigmas_exponential(n: int, sigma_min: float, sigma_max: float, device: Any = "cpu") -> Tensor:
    return torch.tensor(exponential_sigmas(n, float(sigma_min), float(sigma_max)), device=device)


def get_sigmas_polyexponential(
    n: int, sigma_min: float, sigma_max: float, rho: float = 1.0, device: Any = "cpu"
) -> Tensor:
    return torch.tensor(polyexponential_sigmas(n, float(sigma_min), float(sigma_max), rho), device=device)


def to_d(x: Tensor, sigma: Tensor, denoised: Tensor) -> Tensor:
    """The direction in which a sampler steps: (x - denoised) / sigma."""
    return (x - denoised) / sigma.reshape(-1, *[1] * (x.ndim - 1))


def get_ancestral_step(sigma_from: Any, sigma_to: Any, eta: float = 1.0) -> tuple[float, float]:
    """(where a step goes down to, how much noise is added then)"""
    return ancestral_step(float(sigma_from), float(sigma_to), eta)
