"""Flux.1 Redux' two layers, and a style's tokens behind a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Redux(nn.Module):
    """States of SigLIP (batch, tokens, width) -> tokens as wide as T5's, as Black Forest Labs trained it."""

    def __init__(self, seen: int, inner: int, told: int) -> None:
        super().__init__()
        self.redux_up = nn.Linear(seen, inner)
        self.redux_down = nn.Linear(inner, told)

    def forward(self, states: Tensor) -> Tensor:
        return self.redux_down(functional.silu(self.redux_up(states)))


def build(config: Mapping[str, Any]) -> Redux:
    with torch.device("meta"):
        return Redux(**config)


def with_bias(bias: Tensor | None, tokens: int, added: int, amount: float) -> Tensor:
    """What is added to attention where `added` tokens come behind a text of `tokens`: all that was there looks at them
    with `amount` more, they look at everything as it is. (1, n + 1, n + 1): rows look at columns, and the last of both
    stands for every token of the picture."""
    rest = tokens + 1
    before = torch.zeros(1, rest, rest) if bias is None else bias
    made = torch.zeros(1, rest + added, rest + added)
    old = [*range(tokens), tokens + added]  # where the text and the picture are now
    made[:, torch.tensor(old)[:, None], torch.tensor(old)] = before
    made[:, old, tokens : tokens + added] = amount
    return made


def over_picture(bias: Tensor, pictured: int) -> Tensor:
    """(batch, n + 1, n + 1) -> (batch, 1, n + pictured, n + pictured), for all heads."""
    text = bias.shape[-1] - 1
    places = torch.cat([torch.arange(text), torch.full((pictured,), text)]).to(bias.device)
    return bias[:, places][:, :, places][:, None]
