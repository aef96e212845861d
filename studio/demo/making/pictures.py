"""Pictures as tensors and back; draws the pools that the training scripts pick from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def pool(draw: Callable[[], Image.Image], count: int) -> Tensor:
    """`count` pictures as bytes, (count, 3, height, width)."""
    return torch.from_numpy(np.stack([np.asarray(draw()) for _ in range(count)])).permute(0, 3, 1, 2)


def to_unit(pixels: Tensor) -> Tensor:
    """Bytes 0..255 as floats -1..1."""
    return pixels.float() / 127.5 - 1


def to_images(samples: Tensor) -> list[Image.Image]:
    """Floats -1..1, (batch, 3, height, width), as pictures."""
    pixels = ((samples.detach() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
    return [Image.fromarray(picture.numpy()) for picture in pixels]
