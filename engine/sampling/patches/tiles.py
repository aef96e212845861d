"""HyperTile: self-attention of a UNet within tiles of the picture, whose cost grows with the tiles' size alone.

Written after its author's description (github.com/tfernd/HyperTile, MIT).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

from torch import Tensor, nn

from engine.families.parts.patch import Acting, Now
from engine.sampling.patches.unet import Change, Size, around_self_attention

SMALLEST = 4  # cells of a tile's side


def hypertile(tile: int, swap: int, max_depth: int, scale_depth: bool) -> Acting:
    """tile: cells along a tile's side, at least. swap: among how many sizes from that on it is drawn for each layer, so
    that seams don't stand still. Layers whose picture was halved at most max_depth times are tiled; scale_depth: the
    tile grows with each of those halvings."""

    @contextmanager
    def acting(module: nn.Module, now: Now) -> Iterator[None]:
        draw = Random(0)  # the same tiles in every run

        def before(hidden: Tensor, size: Size) -> tuple[Tensor, Change] | None:
            level = size.level(hidden.shape[1])
            if level is None or level > max_depth:
                return None
            height, width = size.height >> level, size.width >> level
            least = max(SMALLEST, tile) * (2**level if scale_depth else 1)
            tall, wide = tile_side(height, least, swap, draw), tile_side(width, least, swap, draw)
            if (tall, wide) == (height, width):
                return None
            grid = (height // tall, width // wide, tall, wide)
            return tiled(hidden, *grid), lambda answer: whole(answer, *grid)

        with around_self_attention(module, before):
            yield

    return acting


def tile_side(length: int, least: int, choices: int, draw: Random) -> int:
    """One of the first `choices` divisors of length from `least` on; the length itself where there is none."""
    divisors = [n for n in range(min(least, length), length + 1) if length % n == 0]
    return draw.choice(divisors[:choices])


def tiled(hidden: Tensor, rows: int, columns: int, height: int, width: int) -> Tensor:
    """(batch, tokens, c) -> (batch * tiles, tokens of a tile, c)."""
    batch, _, channels = hidden.shape
    cells = hidden.reshape(batch, rows, height, columns, width, channels).transpose(2, 3)
    return cells.reshape(batch * rows * columns, height * width, channels)


def whole(tiles: Tensor, rows: int, columns: int, height: int, width: int) -> Tensor:
    """The inverse of `tiled`."""
    channels = tiles.shape[-1]
    cells = tiles.reshape(-1, rows, columns, height, width, channels).transpose(2, 3)
    return cells.reshape(-1, rows * height * columns * width, channels)
