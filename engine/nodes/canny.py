"""Canny's edges (Canny 1986) as kornia computes them, which is what ControlNets for edges were trained beside."""

from __future__ import annotations

import math
from typing import Annotated, Any, cast

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from engine.graph.node import IMAGE, In, NodeContext, Out, node

GREY = (0.299, 0.587, 0.114)
EPSILON = 1e-6
_AROUND: tuple[tuple[int, int], ...] = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))


@node("Canny", title="Canny", title_zh="Canny 边缘", category="image/preprocessors", outputs=[Out("IMAGE")])
def canny(
    ctx: NodeContext,
    image: IMAGE,
    low_threshold: Annotated[float, In("FLOAT", default=0.4, min=0.01, max=0.99, step=0.01)],
    high_threshold: Annotated[float, In("FLOAT", default=0.8, min=0.01, max=0.99, step=0.01)],
) -> tuple[Tensor]:
    """White lines on black. An edge begins above the high threshold and goes on above the low one."""
    edges = [edges_of(one[None, ..., :3].movedim(-1, 1), low_threshold, high_threshold) for one in image]
    return (torch.cat(edges).movedim(1, -1).expand(-1, -1, -1, 3),)


def edges_of(pixels: Tensor, low: float, high: float) -> Tensor:
    """(1, 3, height, width) in 0..1 -> (1, 1, height, width) of 0 and 1."""
    grey = (pixels * torch.tensor(GREY)[:, None, None]).sum(1, keepdim=True) if pixels.shape[1] == 3 else pixels[:, :1]
    x, y = _gradients(_blurred(grey))
    length = (x * x + y * y + EPSILON).sqrt()
    direction = torch.round(torch.atan2(y, x) * (180.0 / math.pi) / 45).long() % 8
    thin = length * _is_ridge(length, direction)
    return _connected(thin > low, thin > high)


def _blurred(grey: Tensor) -> Tensor:
    """A Gaussian of sigma 1 over 5 x 5 pixels."""
    line = torch.exp(-((torch.arange(5) - 2.0) ** 2) / 2)
    line = line / line.sum()
    mode = "reflect" if min(grey.shape[-2:]) > 2 else "replicate"
    padded = functional.pad(grey, (2, 2, 2, 2), mode=mode)
    return functional.conv2d(functional.conv2d(padded, line.reshape(1, 1, 1, 5)), line.reshape(1, 1, 5, 1))


def _gradients(grey: Tensor) -> tuple[Tensor, Tensor]:
    sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    padded = functional.pad(grey, (1, 1, 1, 1), mode="replicate")
    both = functional.conv2d(padded, torch.stack([sobel, sobel.T])[:, None])
    return both[:, :1], both[:, 1:]


def _is_ridge(length: Tensor, direction: Tensor) -> Tensor:
    """Where a gradient is longer than its neighbours before and behind it. direction: eighths of a turn from the right,
    downwards."""
    padded = functional.pad(length, (1, 1, 1, 1))
    height, width = length.shape[-2:]
    around = torch.cat([padded[..., 1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in _AROUND], dim=1)
    ahead, behind = around.gather(1, direction), around.gather(1, (direction + 4) % 8)
    return (length > ahead) & (length > behind)


def _connected(weak: Tensor, strong: Tensor) -> Tensor:
    """The weak pixels that hang together with a strong one."""
    labels: np.ndarray = cast(Any, ndimage.label(weak[0, 0].numpy(), np.ones((3, 3))))[0]
    kept = np.unique(labels[strong[0, 0].numpy()])
    return torch.from_numpy(np.isin(labels, kept[kept > 0]).astype(np.float32))[None, None]
