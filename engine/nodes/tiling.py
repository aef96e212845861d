"""A picture worked through in tiles that overlap and fade into each other, so that it needs the room of one tile."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Size = tuple[int, int]  # height, width


def tiled(
    whole: Tensor,
    function: Callable[[Tensor], Tensor],
    tile: Size,
    overlap: int,
    scale: float,
    channels: int,
    done: Callable[[], None] = lambda: None,
) -> Tensor:
    """function over the tiles of (batch, c, height, width) -> (batch, channels, height * scale, width * scale) in
    float32 on the CPU. `overlap` in cells of `whole`. Pictures that fit into a tile are not cut."""
    height, width = whole.shape[-2:]
    made = torch.empty(len(whole), channels, round(height * scale), round(width * scale))
    for number, one in enumerate(whole.split(1)):
        if height <= tile[0] and width <= tile[1]:
            made[number] = function(one).float().cpu()[0]
            done()
            continue
        total, weights = torch.zeros_like(made[:1]), torch.zeros(1, 1, *made.shape[-2:])
        for y, x in places((height, width), tile, overlap):
            part = function(one[..., y : y + tile[0], x : x + tile[1]]).float().cpu()
            fade = _fade(part, round(overlap * scale))
            top, left = round(y * scale), round(x * scale)
            here = (..., slice(top, top + part.shape[-2]), slice(left, left + part.shape[-1]))
            total[here] += part * fade
            weights[here] += fade
            done()
        made[number] = (total / weights)[0]
    return made


def places(size: Size, tile: Size, overlap: int) -> list[tuple[int, int]]:
    """Where tiles begin: (y, x). The last ones of a side end with it."""

    def along(length: int, step: int) -> list[int]:
        ends = range(0, length - overlap, step - overlap)
        return [min(at, length - overlap) for at in ends] if length > step else [0]

    return list(itertools.product(along(size[0], tile[0]), along(size[1], tile[1])))


def count(shape: Sequence[int], tile: Size, overlap: int) -> int:
    """How often `tiled` calls its function for (batch, c, height, width)."""
    return shape[0] * len(places((shape[-2], shape[-1]), tile, overlap))


def _fade(part: Tensor, reach: int) -> Tensor:
    """(height, width): rising from 1 / reach at every side, which others' tiles fill up."""
    sides = []
    for size in part.shape[-2:]:
        side = torch.ones(size)
        if reach < size:
            ramp = torch.arange(1, reach + 1) / max(1, reach)
            side[:reach] *= ramp
            side[size - reach :] *= ramp.flip(0)
        sides.append(side)
    return sides[0][:, None] * sides[1][None]
