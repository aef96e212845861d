"""How noisy a model's training was: sigmas of its timesteps and the way between the two. It knows no samplers.

x = clean + sigma * noise (k-diffusion's scale); a model trained on sqrt(abar) * clean + sqrt(1 - abar) * noise sees
x / sqrt(1 + sigma^2) at sigma^2 = (1 - abar) / abar.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def scaled_linear_alphas_cumprod(start: float = 0.00085, end: float = 0.012, steps: int = 1000) -> Tensor:
    """Stable Diffusion's schedule: betas whose square roots are evenly spaced. (steps,) float64."""
    betas = torch.linspace(math.sqrt(start), math.sqrt(end), steps, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0)


@dataclass(frozen=True, eq=False)
class DiscreteSchedule:
    """Sigmas of the timesteps 0 .. n-1, rising; made by `from_alphas_cumprod`."""

    sigmas: Tensor  # (n,) float32 on the CPU
    log_sigmas: Tensor

    @classmethod
    def from_alphas_cumprod(cls, alphas_cumprod: Tensor) -> DiscreteSchedule:
        abar = alphas_cumprod.to(device="cpu", dtype=torch.float64)
        sigmas = ((1 - abar) / abar).sqrt()
        return cls(sigmas.float(), sigmas.log().float())

    @property
    def sigma_min(self) -> float:
        return float(self.sigmas[0])

    @property
    def sigma_max(self) -> float:
        return float(self.sigmas[-1])

    def timestep(self, sigma: float) -> float:
        """The training timestep whose sigma is nearest (in log sigma)."""
        log_sigma = torch.tensor(sigma, dtype=torch.float32).log()
        return float((log_sigma - self.log_sigmas).abs().argmin())

    def sigma(self, timestep: float) -> float:
        """Sigma at a timestep, between two by interpolation in log sigma."""
        t = min(max(timestep, 0.0), len(self.sigmas) - 1.0)
        low, high, weight = math.floor(t), math.ceil(t), t - math.floor(t)
        log_sigma = (1 - weight) * self.log_sigmas[low] + weight * self.log_sigmas[high]
        return float(log_sigma.exp())

    def percent_to_sigma(self, percent: float) -> float:
        """Sigma when that part of the way (0 .. 1) is done; beyond every sigma at 0, and 0 at 1."""
        if percent <= 0:
            return math.inf
        if percent >= 1:
            return 0.0
        return self.sigma((1 - percent) * (len(self.sigmas) - 1))

    def is_pure_noise(self, sigma: float) -> bool:
        """Whether nothing of the picture was left in training at this sigma."""
        return sigma > self.sigma_max or math.isclose(sigma, self.sigma_max, rel_tol=1e-5)

    def add_noise(self, latent: Tensor, noise: Tensor, sigma: float, pure: bool = False) -> Tensor:
        """Latent with noise of that sigma. `pure`: as much noise as the model's input of unit variance holds."""
        return latent + noise * (math.sqrt(1 + sigma**2) if pure else sigma)
