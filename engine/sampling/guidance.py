"""Classifier-free guidance (https://arxiv.org/abs/2207.12598) over a model: from its predictions to a Denoiser.

It batches what can go into one call of the model and knows nothing of how the model is made or where it came from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from engine.families.base import Prediction, TextBatch
from engine.sampling.conditioning import Condition, meet_areas
from engine.sampling.schedule import DiscreteSchedule

# (model input of unit variance, timesteps (batch,), text) -> eps or v
Predict = Callable[[Tensor, Tensor, TextBatch], Tensor]

# Prompts of different length are repeated to a common one for one call, unless that makes one this much longer.
LONGEST_REPEAT = 4


class Guided:
    """A GuidedDenoiser: denoised = uncond + cfg * (cond - uncond). At cfg 1 the negative prompt is not evaluated."""

    def __init__(
        self,
        predict: Predict,
        schedule: DiscreteSchedule,
        prediction: Prediction,
        positive: list[Condition],
        negative: list[Condition],
        cfg: float,
        interrupt_check: Callable[[], None] = lambda: None,
    ) -> None:
        self.predict = predict
        self.schedule = schedule
        self.prediction: Prediction = prediction
        self.positive, self.negative = meet_areas(positive, negative)
        self.cfg = cfg
        self.interrupt_check = interrupt_check

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        if math.isclose(self.cfg, 1.0):
            return self._estimates(x, sigma, [self.positive])[0]
        return self.with_uncond(x, sigma)[0]

    def with_uncond(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        cond, uncond = self._estimates(x, sigma, [self.positive, self.negative])
        return uncond + (cond - uncond) * self.cfg, uncond

    def _estimates(self, x: Tensor, sigma: float, sides: Sequence[list[Condition]]) -> list[Tensor]:
        """The weighted mean of the denoised latents of each side's conditions; zero where none counts."""
        self.interrupt_check()
        active = [(side, c) for side, conditions in enumerate(sides) for c in conditions if c.active(sigma)]
        sums = [torch.zeros_like(x) for _ in sides]
        weights = [torch.full_like(x, 1e-37) for _ in sides]  # nothing over nothing is nothing
        for group in _batches([condition for _, condition in active], x):
            denoised = self._denoised(x, sigma, [active[i][1] for i in group])
            for i, estimate in zip(group, denoised, strict=True):
                side, condition = active[i]
                weight = condition.weight(x)
                part = condition.area.crop if condition.area else _whole
                part(sums[side]).add_(estimate * weight)
                part(weights[side]).add_(weight)
        return [total / weight for total, weight in zip(sums, weights, strict=True)]

    def _denoised(self, x: Tensor, sigma: float, conditions: list[Condition]) -> list[Tensor]:
        """One call of the model for conditions whose areas have one size."""
        parts = [c.area.crop(x) if c.area else x for c in conditions]
        stacked = torch.cat(parts)
        timesteps = torch.full((stacked.shape[0],), self.schedule.timestep(sigma), device=x.device)
        out = self.predict(stacked / math.sqrt(sigma**2 + 1), timesteps, _cat([c.text for c in conditions])).to(x)
        if self.prediction == "eps":
            denoised = stacked - out * sigma
        else:
            denoised = stacked / (sigma**2 + 1) - out * (sigma / math.sqrt(sigma**2 + 1))
        return list(denoised.split(x.shape[0]))


def _whole(tensor: Tensor) -> Tensor:
    return tensor


def _batches(conditions: list[Condition], x: Tensor) -> list[list[int]]:
    """Indices of conditions that go into one call: same size of area, prompts that repeat to a common length."""
    groups: list[list[int]] = []
    for i, condition in enumerate(conditions):
        for group in groups:
            if all(_fits(condition, conditions[j]) for j in group):
                group.append(i)
                break
        else:
            groups.append([i])
    return groups


def _fits(a: Condition, b: Condition) -> bool:
    size_a, size_b = ((c.area.height, c.area.width) if c.area else None for c in (a, b))
    tokens_a, tokens_b = a.text.cross.shape[1], b.text.cross.shape[1]
    same_kind = (a.text.pooled is None) == (b.text.pooled is None) and a.text.extra.keys() == b.text.extra.keys()
    repeats = math.lcm(tokens_a, tokens_b) // min(tokens_a, tokens_b)
    return size_a == size_b and same_kind and repeats <= LONGEST_REPEAT


def _cat(texts: list[TextBatch]) -> TextBatch:
    """One batch of all. Repeating a prompt's tokens does not change what attention makes of it."""
    tokens = math.lcm(*(text.cross.shape[1] for text in texts))
    pooled = [text.pooled for text in texts if text.pooled is not None]
    return TextBatch(
        cross=torch.cat([text.cross.repeat(1, tokens // text.cross.shape[1], 1) for text in texts]),
        pooled=torch.cat(pooled) if pooled else None,
        extra={key: torch.cat([text.extra[key] for text in texts]) for key in texts[0].extra},
    )
