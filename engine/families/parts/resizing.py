"""Resizing as ComfyUI does it, for pictures and latents alike: (batch, channel, height, width) tensors."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

IMAGE_METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")
LATENT_METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "bislerp")
CROPS = ("disabled", "center")


def resized(samples: Tensor, width: int, height: int, method: str, crop: str) -> Tensor:
    """`crop` "center" first cuts off what would not fit the new proportions, equally on both sides."""
    if crop == "center":
        samples = _center_cropped(samples, width, height)
    if method == "lanczos":
        return _lanczos(samples, width, height)
    if method == "bislerp":
        return _bislerp(samples, width, height)
    return functional.interpolate(samples, size=(height, width), mode=method)


def repeated_to(tensor: Tensor, count: int) -> Tensor:
    """A batch, repeated as often as it takes and cut to `count`."""
    if len(tensor) == count:
        return tensor
    return tensor.repeat(-(-count // len(tensor)), *[1] * (tensor.ndim - 1))[:count]


def _center_cropped(samples: Tensor, width: int, height: int) -> Tensor:
    old_height, old_width = samples.shape[-2:]
    old_aspect, new_aspect = old_width / old_height, width / height
    x = round((old_width - old_width * (new_aspect / old_aspect)) / 2) if old_aspect > new_aspect else 0
    y = round((old_height - old_height * (old_aspect / new_aspect)) / 2) if old_aspect < new_aspect else 0
    return samples[..., y : old_height - y, x : old_width - x]


def _lanczos(samples: Tensor, width: int, height: int) -> Tensor:
    """By Pillow, on 8 bits a channel."""
    levels = np.clip(samples.movedim(1, -1).numpy() * 255.0, 0, 255).astype(np.uint8)
    scaled = []
    for picture in levels:
        flat = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
        scaled.append(np.asarray(flat.resize((width, height), Image.Resampling.LANCZOS)).astype(np.float32) / 255.0)
    pixels = torch.from_numpy(np.stack(scaled))
    return pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.movedim(-1, 1)


def _bislerp(samples: Tensor, width: int, height: int) -> Tensor:
    """Bilinear, but between the channel vectors of two cells the direction turns and the length goes linearly."""
    wide = _slerp_along(samples.float(), width, dim=-1)
    return _slerp_along(wide, height, dim=-2).to(samples.dtype)


def _slerp_along(samples: Tensor, size: int, dim: int) -> Tensor:
    old = samples.shape[dim]
    place = ((torch.arange(size, dtype=torch.float32, device=samples.device) + 0.5) * (old / size) - 0.5).clamp(
        0, old - 1
    )
    low = place.floor().long()
    high = (low + 1).clamp(max=old - 1)
    ratio = place - low
    shape = [1] * samples.ndim
    shape[dim] = size
    return _slerp(samples.index_select(dim, low), samples.index_select(dim, high), ratio.reshape(shape))


def _slerp(a: Tensor, b: Tensor, ratio: Tensor) -> Tensor:
    """a, b: (batch, channel, ...); between 0 (a) and 1 (b). Equal directions give a, opposite ones go straight."""
    length_a, length_b = a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True)
    unit_a, unit_b = a / length_a.clamp(min=1e-20), b / length_b.clamp(min=1e-20)
    cosine = (unit_a * unit_b).sum(1, keepdim=True)
    angle = cosine.clamp(-1, 1).acos()
    sine = angle.sin().clamp(min=1e-20)
    turned = ((1 - ratio) * angle).sin() / sine * unit_a + (ratio * angle).sin() / sine * unit_b
    turned = turned * (length_a * (1 - ratio) + length_b * ratio)
    turned = torch.where(cosine > 1 - 1e-5, a, turned)
    return torch.where(cosine < 1e-5 - 1, a * (1 - ratio) + b * ratio, turned)
