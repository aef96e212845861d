"""Latents as the tokens of a transformer: squares of cells in rows, their places, and the way back."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PATCH = 2  # latent cells along a side of Flux' tokens


def to_whole_patches(x: Tensor, patch: int) -> Tensor:
    """Odd sides get what is at their other end, as if the picture were a tile."""
    down, right = -x.shape[-2] % patch, -x.shape[-1] % patch
    return F.pad(x, (0, right, 0, down), mode="circular") if down or right else x


def patches(x: Tensor, patch: int) -> Tensor:
    """(batch, c, h, w) -> (batch, h / patch * w / patch, c * patch * patch)."""
    batch, channels, height, width = x.shape
    cells = x.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * patch * patch)


def unpatched(tokens: Tensor, height: int, width: int, patch: int) -> Tensor:
    """The way back from `patches`."""
    cells = tokens.view(tokens.shape[0], height // patch, width // patch, -1, patch, patch)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(tokens.shape[0], -1, height, width)


def places(rows: int, columns: int, first: tuple[int, int, int], device: torch.device) -> Tensor:
    """(rows * columns, 3): picture, row and column of each token, from `first` on."""
    picture, y, x = first
    ids = torch.zeros(rows, columns, 3, device=device)
    ids[..., 0] = picture
    ids[..., 1] = torch.arange(y, y + rows, device=device)[:, None]
    ids[..., 2] = torch.arange(x, x + columns, device=device)[None, :]
    return ids.flatten(0, 1)
