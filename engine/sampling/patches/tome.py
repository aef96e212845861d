"""Token merging for Stable Diffusion (https://arxiv.org/abs/2303.17604): self-attention of a UNet's outer layers over
fewer tokens, of which those alike are one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from engine.families.parts.patch import Acting, Now
from engine.sampling.patches.unet import Change, Size, around_self_attention

CELL = 2  # one of CELL x CELL neighbours is a destination that others are merged into


def merge_tokens(ratio: float) -> Acting:
    """That share of the tokens is merged away in layers of the latent's full size; what a merged token is given back is
    its destination's answer. At most three quarters can go: destinations stay."""

    @contextmanager
    def acting(module: nn.Module, now: Now) -> Iterator[None]:
        generator = torch.Generator().manual_seed(0)  # the same destinations in every run

        def before(hidden: Tensor, size: Size) -> tuple[Tensor, Change] | None:
            count = int(hidden.shape[1] * ratio)
            if size.level(hidden.shape[1]) != 0 or count == 0:
                return None
            merge, unmerge = matching(hidden, size, count, generator)
            return merge(hidden), unmerge

        with around_self_attention(module, before):
            yield

    return acting


def destinations(size: Size, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(destinations, sources): numbers of tokens. One drawn destination in each whole cell; the paper fixes them over
    the batch, so that both halves of a guidance merge alike."""
    rows, columns = size.height // CELL, size.width // CELL
    chosen = torch.randint(CELL * CELL, (rows, columns), generator=generator)
    y = torch.arange(rows)[:, None] * CELL + chosen // CELL
    x = torch.arange(columns)[None, :] * CELL + chosen % CELL
    is_destination = torch.zeros(size.height * size.width, dtype=torch.bool)
    is_destination[(y * size.width + x).flatten()] = True
    numbers = torch.arange(len(is_destination))
    return numbers[is_destination], numbers[~is_destination]


def matching(
    metric: Tensor, size: Size, count: int, generator: torch.Generator
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """(merge, unmerge) for the `count` sources that are most like a destination, by the cosine of `metric` (batch,
    tokens, width). merge averages them into it, and gives (batch, tokens - count, width): other sources, then
    destinations."""
    to, of = (numbers.to(metric.device) for numbers in destinations(size, generator))
    count = min(count, len(of)) if len(to) else 0
    unit = nn.functional.normalize(metric, dim=-1)
    best, nearest = (unit[:, of] @ unit[:, to].transpose(1, 2)).max(dim=-1)  # (batch, sources)
    order = best.argsort(dim=-1, descending=True, stable=True)
    gone, kept = order[:, :count], order[:, count:]  # places among the sources
    target = nearest.gather(1, gone)  # places among the destinations

    def merge(tokens: Tensor) -> Tensor:
        sources, ends = tokens[:, of], tokens[:, to]
        ends = ends.scatter_reduce(1, _wide(target, ends), _take(sources, gone), "mean", include_self=True)
        return torch.cat([_take(sources, kept), ends], dim=1)

    def unmerge(tokens: Tensor) -> Tensor:
        stayed, ends = tokens[:, : kept.shape[1]], tokens[:, kept.shape[1] :]
        sources = tokens.new_empty(tokens.shape[0], len(of), tokens.shape[2])
        sources.scatter_(1, _wide(kept, sources), stayed)
        sources.scatter_(1, _wide(gone, sources), _take(ends, target))
        whole = tokens.new_empty(tokens.shape[0], len(of) + len(to), tokens.shape[2])
        whole[:, of], whole[:, to] = sources, ends
        return whole

    return merge, unmerge


def _wide(places: Tensor, like: Tensor) -> Tensor:
    return places[:, :, None].expand(-1, -1, like.shape[2])


def _take(tokens: Tensor, places: Tensor) -> Tensor:
    return tokens.gather(1, _wide(places, tokens))
