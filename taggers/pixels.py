"""A picture as a tagger's input: fitted to the model's square, then one float batch in its layout and channel order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from engine.dataset.decoding import open_rgb
from taggers.spec import Pixels

_RESAMPLE = {
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
}


def load(path: Path, pixels: Pixels, size: int) -> np.ndarray:
    """The file as (size, size, 3) bytes in RGB. Raises PictureError."""
    return np.asarray(fitted(open_rgb(path, at_least=size), pixels, size))


def fitted(image: Image.Image, pixels: Pixels, size: int) -> Image.Image:
    """An RGB picture on the model's square."""
    resample = _RESAMPLE[pixels.resample]
    if pixels.fit == "scale and pad":
        scale = size / max(image.size)
        inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image if image.size == inner else image.resize(inner, resample)
    if pixels.fit != "squash":
        # padding after resizing shifts the picture by a part of a pixel, so the order is part of the contract
        image = _squared(image, pixels.pad_colour)
    return image if image.size == (size, size) else image.resize((size, size), resample)


def batch(arrays: Sequence[np.ndarray], pixels: Pixels, into: np.ndarray | None = None) -> np.ndarray:
    """Pictures of `load` as one float32 array, (n, size, size, 3) or (n, 3, size, size).

    `into` may hold an array of the batch before: fresh memory costs as much as filling it.
    """
    size = arrays[0].shape[0]
    order = (2, 1, 0) if pixels.channels == "BGR" else (0, 1, 2)
    first = pixels.layout == "NCHW"
    shape = (len(arrays), 3, size, size) if first else (len(arrays), size, size, 3)
    again = into is not None and into.shape[1:] == shape[1:] and len(into) >= len(arrays)
    values = into[: len(arrays)] if again and into is not None else np.empty(shape, np.float32)
    tables = _tables(pixels)
    # a plane at a time, cast on the way: nothing is copied twice
    for row, array in zip(values, arrays, strict=True):
        for place, channel in enumerate(order):
            plane = row[place] if first else row[..., place]
            if tables is None:
                plane[...] = array[..., channel]
            elif first:
                np.take(tables[place], array[..., channel], out=plane, mode="clip")
            else:
                plane[...] = tables[place][array[..., channel]]
    return values


def _tables(pixels: Pixels) -> np.ndarray | None:
    """What each of the 256 values of a channel becomes, (3, 256) in the model's own order of channels."""
    if pixels.mean is None or pixels.std is None:
        return None
    shares = np.arange(256, dtype=np.float32)[None] / np.float32(255.0)
    mean, std = (np.array(of, np.float32)[:, None] for of in (pixels.mean, pixels.std))
    return (shares - mean) / std


def _squared(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    side = max(image.size)
    if image.size == (side, side):
        return image
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square
