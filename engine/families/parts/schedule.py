"""How noisy a model's training was: its sigmas, its timesteps and the way between the two. It knows no samplers.

x = alpha * clean + sigma * noise. Diffusion models are sampled in k-diffusion's scale, where alpha is 1 (what the model
itself sees is prediction.py's); flow models in their own, where alpha = 1 - sigma.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from engine.errors import GraphError

Time = Literal["edm", "v", "flow"]

# What abar of the last timestep becomes where it would be 0: sigma stays finite (4518.8).
ALMOST_NO_SIGNAL = 4.8973451890853435e-08


def zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """Shifted and scaled so that the last one is all but noise (https://arxiv.org/abs/2305.08891). In float64: the
    lowest sigma is a difference of numbers near 1."""
    root = alphas_cumprod.double().sqrt()
    first, last = root[0].clone(), root[-1].clone()
    abar = ((root - last) * (first / (first - last))) ** 2
    abar[-1] = ALMOST_NO_SIGNAL
    return abar


class NoRange(GraphError):
    en = "Sigmas can't go from {high:g} down to {low:g}: sigma_min must be above 0 and below sigma_max."
    zh = "sigma 无法从 {high:g} 降到 {low:g}：sigma_min 必须大于 0 且小于 sigma_max。"


class Schedule(Protocol):
    """Frozen; sigmas are plain floats, but for the table."""

    @property
    def sigmas(self) -> Tensor:
        """A table of the sigmas of training, rising: (n,) float32 on the CPU."""
        ...

    @property
    def sigma_min(self) -> float: ...

    @property
    def sigma_max(self) -> float: ...

    def timestep(self, sigma: float) -> float:
        """What the model is told at this sigma."""
        ...

    def sigma(self, timestep: float) -> float: ...

    def percent_to_sigma(self, percent: float) -> float:
        """Sigma when that part of the way (0 .. 1) is done; no sigma of a run is above that of 0, and 1 gives 0."""
        ...

    def alpha(self, sigma: float) -> float:
        """How much of the clean latent is in x."""
        ...

    @property
    def is_flow(self) -> bool:
        """Whether alpha is 1 - sigma."""
        ...

    def is_pure_noise(self, sigma: float) -> bool:
        """Whether nothing of the picture was left in training at this sigma."""
        ...

    def add_noise(self, latent: Tensor, noise: Tensor, sigma: float, pure: bool = False) -> Tensor:
        """x at that sigma. `pure`: as much noise as the model's input of unit variance holds."""
        ...

    def finish(self, x: Tensor, sigma: float) -> Tensor:
        """What a run that ends at `sigma` hands on: the latent in which `add_noise` of no noise gives x."""
        ...


def scaled_linear_alphas_cumprod(start: float = 0.00085, end: float = 0.012, steps: int = 1000) -> Tensor:
    """Stable Diffusion's schedule: betas whose square roots are evenly spaced. (steps,) float64."""
    betas = torch.linspace(math.sqrt(start), math.sqrt(end), steps, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0)


def noise_to_signal(schedule: Schedule, sigma: float) -> float:
    """sigma / alpha: what sigma is where alpha is 1."""
    alpha = schedule.alpha(sigma)
    return sigma / alpha if alpha else math.inf


def at_or_above(sigma: float, sigma_max: float) -> bool:
    return sigma > sigma_max or math.isclose(sigma, sigma_max, rel_tol=1e-5)


class VarianceExploding:
    """alpha = 1: noise is added to the latent as it is."""

    is_flow = False

    def alpha(self, sigma: float) -> float:
        return 1.0

    def add_noise(self, latent: Tensor, noise: Tensor, sigma: float, pure: bool = False) -> Tensor:
        if not pure:
            return latent + noise * sigma
        # In float32, as the rest of the run: where sigma is in the thousands (zero terminal SNR), the first step takes
        # nearly all of x away, and what rounding leaves is seen.
        return latent + noise * float(torch.sqrt(1.0 + torch.tensor(sigma, dtype=torch.float32) ** 2))

    def finish(self, x: Tensor, sigma: float) -> Tensor:
        return x


@dataclass(frozen=True, eq=False)
class DiscreteSchedule(VarianceExploding):
    """A table of timesteps 0 .. n * stride - 1, of which every `stride`-th was trained (LCM: 50 of 1000)."""

    sigmas: Tensor
    stride: int = 1
    log_sigmas: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "log_sigmas", self.sigmas.double().log().float())

    @classmethod
    def from_alphas_cumprod(cls, alphas_cumprod: Tensor) -> DiscreteSchedule:
        """sigma^2 = (1 - abar) / abar: of models trained on sqrt(abar) * clean + sqrt(1 - abar) * noise."""
        abar = alphas_cumprod.to(device="cpu", dtype=torch.float64)
        return cls(((1 - abar) / abar).sqrt().float())

    def distilled(self, steps: int = 50) -> DiscreteSchedule:
        """Every n-th timestep, the last one among them, as consistency models are distilled (2310.04378)."""
        stride = len(self.sigmas) // steps
        return DiscreteSchedule(self.sigmas[stride - 1 :: stride].clone(), stride)

    def zero_terminal_snr(self) -> DiscreteSchedule:
        return self.from_alphas_cumprod(zero_terminal_snr(1 / (self.sigmas.double() ** 2 + 1)))

    @property
    def sigma_min(self) -> float:
        return float(self.sigmas[0])

    @property
    def sigma_max(self) -> float:
        return float(self.sigmas[-1])

    def timestep(self, sigma: float) -> float:
        """The training timestep whose sigma is nearest (in log sigma)."""
        log_sigma = torch.tensor(sigma, dtype=torch.float32).log()
        nearest = int((log_sigma - self.log_sigmas).abs().argmin())
        return float(nearest * self.stride + self.stride - 1)

    def sigma(self, timestep: float) -> float:
        """Sigma at a timestep, between two by interpolation in log sigma."""
        t = min(max((timestep - (self.stride - 1)) / self.stride, 0.0), len(self.sigmas) - 1.0)
        low, high, weight = math.floor(t), math.ceil(t), t - math.floor(t)
        log_sigma = (1 - weight) * self.log_sigmas[low] + weight * self.log_sigmas[high]
        return float(log_sigma.exp())

    def percent_to_sigma(self, percent: float) -> float:
        if percent <= 0:
            return math.inf
        if percent >= 1:
            return 0.0
        return self.sigma((1 - percent) * (len(self.sigmas) * self.stride - 1))

    def is_pure_noise(self, sigma: float) -> bool:
        return at_or_above(sigma, self.sigma_max)


@dataclass(frozen=True)
class ContinuousSchedule(VarianceExploding):
    """Any sigma of a range. `time` is what the model is told: a quarter of log sigma (EDM, 2206.00364), the angle
    between signal and noise over a right angle (v diffusion, 2202.00512), or the sigma of the same noise in a flow
    model's scale (Cosmos)."""

    sigma_min: float
    sigma_max: float
    time: Time = "edm"

    @classmethod
    def between(cls, sigma_min: float, sigma_max: float, time: Time = "edm") -> ContinuousSchedule:
        """Raises NoRange where that is no range of positive sigmas."""
        if not 0 < sigma_min < sigma_max:
            raise NoRange(low=sigma_min, high=sigma_max)
        return cls(sigma_min, sigma_max, time)

    @property
    def sigmas(self) -> Tensor:
        return torch.linspace(math.log(self.sigma_min), math.log(self.sigma_max), 1000).exp()

    def timestep(self, sigma: float) -> float:
        if self.time == "edm":
            return 0.25 * math.log(sigma)
        return math.atan(sigma) / (math.pi / 2) if self.time == "v" else sigma / (sigma + 1)

    def sigma(self, timestep: float) -> float:
        if self.time == "edm":
            return math.exp(timestep / 0.25)
        if self.time == "v":
            return math.tan(timestep * math.pi / 2)
        return self.sigma_max if timestep >= self.timestep(self.sigma_max) else timestep / (1 - timestep)

    def percent_to_sigma(self, percent: float) -> float:
        """Evenly in log sigma."""
        if percent <= 0:
            return math.inf
        if percent >= 1:
            return 0.0
        low, high = math.log(self.sigma_min), math.log(self.sigma_max)
        return math.exp(low + (high - low) * (1 - percent))

    def is_pure_noise(self, sigma: float) -> bool:
        return at_or_above(sigma, self.sigma_max)


@dataclass(frozen=True)
class FlowSchedule:
    """Rectified flow (https://arxiv.org/abs/2403.03206): x = (1 - sigma) * clean + sigma * noise.

    `shift` s moves the time t to sigma = s t / (1 + (s - 1) t), eq. 23; Flux states it as mu = log s. A model is told
    sigma * multiplier: 1000 in SD3, 1 in AuraFlow and Flux. `steps` is the length of the table.
    """

    shift: float = 1.0
    multiplier: float = 1000.0
    steps: int = 1000

    @property
    def is_flow(self) -> bool:
        return True

    @classmethod
    def flux(cls, mu: float = 1.15) -> FlowSchedule:
        return cls(math.exp(mu), 1.0, 10_000)

    def shifted(self, t: float) -> float:
        return self.shift * t / (1 + (self.shift - 1) * t)

    @property
    def sigmas(self) -> Tensor:
        t = torch.arange(1, self.steps + 1) / self.steps
        return self.shift * t / (1 + (self.shift - 1) * t)

    @property
    def sigma_min(self) -> float:
        return self.shifted(1 / self.steps)

    @property
    def sigma_max(self) -> float:
        return self.shifted(1.0)

    def timestep(self, sigma: float) -> float:
        return sigma * self.multiplier

    def sigma(self, timestep: float) -> float:
        return self.shifted(timestep / self.multiplier)

    def percent_to_sigma(self, percent: float) -> float:
        if percent <= 0:
            return 1.0
        return 0.0 if percent >= 1 else self.shifted(1 - percent)

    def alpha(self, sigma: float) -> float:
        return 1 - sigma

    def is_pure_noise(self, sigma: float) -> bool:
        return at_or_above(sigma, self.sigma_max)

    def add_noise(self, latent: Tensor, noise: Tensor, sigma: float, pure: bool = False) -> Tensor:
        return latent * (1 - sigma) + noise * sigma

    def finish(self, x: Tensor, sigma: float) -> Tensor:
        """Nothing of a latent is left in pure noise: x of a run that ends there stays as it is."""
        return x if sigma >= 1 else x / (1 - sigma)
