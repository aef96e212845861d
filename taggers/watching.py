"""Whether the scores that a model chooses its words by are numbers: what is chosen among NaN looks like an answer."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LogitsProcessor


class Watched(LogitsProcessor):
    """Changes nothing. `broken`: for each row of the batch, whether NaN or infinity was among its scores."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self._rows = rows
        self._broken = torch.zeros(rows, dtype=torch.bool, device=device)  # stays there: no waiting at every word

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # (batch x beams, words) -> the same
        wrong = ~(scores < torch.inf).all(1)  # words that may not come have minus infinity
        self._broken |= wrong.view(self._rows, -1).any(1)
        return scores

    @property
    def broken(self) -> list[bool]:
        return self._broken.tolist()
