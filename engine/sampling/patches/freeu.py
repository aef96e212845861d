"""FreeU (https://arxiv.org/abs/2309.11497): where a UNet joins its skips, more of the backbone and less of their low
frequencies. Nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from engine.families.parts.patch import Acting, Now
from engine.sampling.patches.unet import entering, joins, removing

Factors = Callable[[Tensor, float], Tensor | float]  # (hidden state, b) -> what half of its channels are multiplied by


def flat(hidden: Tensor, b: float) -> float:
    return b


def by_mean(hidden: Tensor, b: float) -> Tensor:
    """Version 2: between 1 and b, by the mean over channels scaled to 0..1 in each picture."""
    mean = hidden.mean(dim=1, keepdim=True)
    low, high = mean.amin(dim=(2, 3), keepdim=True), mean.amax(dim=(2, 3), keepdim=True)
    return (b - 1) * (mean - low) / (high - low) + 1


def freeu(scales: Mapping[int, tuple[float, float]], factors: Factors) -> Acting:
    """scales: {channels of the hidden state: (b, s)}; other joins stay as they are."""

    @contextmanager
    def acting(module: nn.Module, now: Now) -> Iterator[None]:
        found = [(join, scales[join.width]) for join in joins(module) if join.width in scales]
        with removing(*(entering(join.resnet, _joined(join.width, b, s, factors)) for join, (b, s) in found)):
            yield

    return acting


def _joined(width: int, b: float, s: float, factors: Factors) -> Callable[[Tensor], Tensor]:
    def change(both: Tensor) -> Tensor:
        hidden, skip = both[:, :width], both[:, width:]
        half = width // 2
        return torch.cat([hidden[:, :half] * factors(hidden, b), hidden[:, half:], low_scaled(skip, s)], dim=1)

    return change


def low_scaled(skip: Tensor, scale: float) -> Tensor:
    """The frequencies -1 and 0 of both axes multiplied by scale; in float32."""
    spectrum = torch.fft.fft2(skip.float())
    mask = torch.ones(skip.shape[-2:], device=skip.device)
    for row in (-1, 0):
        for column in (-1, 0):
            mask[row, column] = scale
    return torch.fft.ifft2(spectrum * mask).real.to(skip)
