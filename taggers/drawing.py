"""Drawing words by chance so that a picture gets the same answer in whatever batch and order it comes.

A draw from a distribution is the largest of its logarithms, each with noise of Gumbel's distribution added (Gumbel
1954; "the Gumbel-max trick"). Each row has a generator of its own, so that `generate` may simply take the largest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor


class Drawn(LogitsProcessor):
    """Temperature and top-p, then the draw. `keys` tell the rows of a batch apart: what a picture shows."""

    def __init__(self, seed: int, keys: Sequence[str], temperature: float, top_p: float, device: torch.device) -> None:
        self.temperature, self.top_p = temperature, top_p
        self._generators = [torch.Generator(device).manual_seed(_number(seed, key)) for key in keys]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # (batch, words) -> the same
        values = scores.float() / self.temperature
        if self.top_p < 1.0:
            values = _likeliest(values, self.top_p)
        noise = torch.stack(
            [torch.rand(values.shape[1], generator=one, device=values.device) for one in self._generators]
        )
        tiny = torch.finfo(torch.float32).tiny
        waits = (-torch.log(noise.clamp_min(tiny))).clamp_min(tiny)  # exponentially distributed
        return values - torch.log(waits)


def _likeliest(values: Tensor, share: float) -> Tensor:
    """The fewest words whose probabilities sum to `share`; the rest can't be drawn."""
    ordered, order = values.sort(descending=True)
    before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
    unwanted = torch.zeros_like(values, dtype=torch.bool).scatter(1, order, before >= share)
    return values.masked_fill(unwanted, float("-inf"))


def _number(seed: int, key: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed} {key}".encode(), digest_size=7).digest(), "little")
