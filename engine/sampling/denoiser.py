"""What a sampler needs to know of a model: `denoiser(x, sigma) -> denoised`. It knows no model family.

Sigmas are plain floats, so that a loop over them never waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Denoiser(Protocol):
    """The guided estimate of the clean latent from x = clean + sigma * noise. Shapes of x and result are the same."""

    def __call__(self, x: Tensor, sigma: float) -> Tensor: ...


class GuidedDenoiser(Denoiser, Protocol):
    """Also tells the unconditional estimate, which the CFG++ samplers step along."""

    def with_uncond(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """(denoised, unconditional denoised) of one model evaluation."""
        ...


# (sigma, sigma_next) -> standard normal noise of x's shape for the step between the two.
NoiseSource = Callable[[float, float], Tensor]


class SizedNoise(Protocol):
    """Noise for samplers that change the size of x on the way."""

    def like(self, x: Tensor) -> Tensor:
        """Standard normal, of its shape."""
        ...


@dataclass(frozen=True)
class Step:
    """What a callback sees after the first model evaluation of a step; `index` counts from 0."""

    index: int
    total: int
    sigma: float
    x: Tensor
    denoised: Tensor


Callback = Callable[[Step], None]


def silent(step: Step) -> None:
    """A callback that does nothing."""
