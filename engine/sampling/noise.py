"""Noise from seeds: the same picture for the same seed, on every device. All of it is drawn on the CPU.

The rules are ComfyUI's, so that its seeds give its pictures: the first noise is one draw of the whole batch from
`seed`, what a sampler adds on the way starts at `seed` again (so that its first draw equals the first noise), and SDE
samplers walk a Brownian tree of `seed`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.sampling.denoiser import NoiseSource


@dataclass(frozen=True)
class Noise:
    """A NOISE link: what a run starts with, and the seed of what is added on the way. `none`: it starts with none."""

    seed: int = 0
    none: bool = False

    def draw(self, latent: Tensor, batch_index: Sequence[int] | None = None) -> Tensor:
        return torch.zeros(latent.shape) if self.none else initial_noise(latent, self.seed, batch_index)


def initial_noise(latent: Tensor, seed: int, batch_index: Sequence[int] | None = None) -> Tensor:
    """Standard normal noise of latent's shape, on the CPU in float32.

    batch_index: which picture of a larger batch each one is; it gets the noise that it has there.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    if batch_index is None:
        return torch.randn(latent.shape, generator=generator)
    one = (1, *latent.shape[1:])
    drawn = [torch.randn(one, generator=generator) for _ in range(max(batch_index) + 1)]
    return torch.cat([drawn[index] for index in batch_index])


class StepNoise:
    """A NoiseSource of fresh noise at every call, as ancestral samplers add it."""

    def __init__(self, x: Tensor, seed: int) -> None:
        self._x = x
        self._generator = torch.Generator("cpu").manual_seed(seed)

    def __call__(self, sigma: float, sigma_next: float) -> Tensor:
        return self.like(self._x)

    def like(self, x: Tensor) -> Tensor:
        """Of another shape than the run began with."""
        return torch.randn(x.shape, generator=self._generator).to(device=x.device, dtype=x.dtype)


def step_noise(x: Tensor, seed: int) -> StepNoise:
    return StepNoise(x, seed)


def brownian_noise(x: Tensor, sigmas: Sequence[float], seed: int) -> NoiseSource:
    """Increments of one Brownian path over sigma, scaled to unit variance.

    The path is fixed by the seed alone, so that more steps refine the same picture (torchsde's BrownianTree).
    """
    import torchsde

    # The tree rounds times to its tolerance and warns about those a rounding error outside.
    start, end = (round(edge, 6) for edge in (min(s for s in sigmas if s > 0), max(sigmas)))
    tree: torchsde.BrownianTree | None = None

    def increment(sigma: float, sigma_next: float) -> Tensor:
        nonlocal tree
        if tree is None:
            tree = torchsde.BrownianTree(t0=start, t1=end, w0=torch.zeros(x.shape), entropy=seed)
        low, high = sorted((sigma, sigma_next))
        w = tree(max(low, start), min(high, end))
        assert isinstance(w, Tensor)
        w = w / math.sqrt(high - low)
        return (w if sigma < sigma_next else -w).to(device=x.device, dtype=x.dtype)

    return increment
