"""Pictures of more than 8 bits a channel as files: PNG of 16 bits, OpenEXR of 32-bit floats. Knows numpy, no torch.

Pillow writes neither. Both carry the same texts as an ordinary picture made here: text chunks in PNG, string attributes
in EXR.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import IO, Literal

import numpy as np

from engine.graph.metadata import Metadata, png_text

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, RGBA = 0, 2, 6  # PNG's types of colour
UP = 2  # PNG's filter: each byte as its difference to the one above
Colour = Literal["sRGB", "HDR", "linear"]
# x and y of red, green, blue and white: https://www.itu.int/rec/R-REC-BT.709, https://www.itu.int/rec/R-REC-BT.2020
REC_709 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)
REC_2020 = (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, 0.3127, 0.3290)


def write_png16(pixels: np.ndarray, file: IO[bytes], metadata: Metadata, compress_level: int) -> None:
    """(height, width, 1, 3 or 4) in 0..1. Values are cut, not rounded, as those of 8 bits are."""
    height, width, channels = pixels.shape
    levels = np.clip(pixels.astype(np.float64) * 65535.0, 0, 65535).astype(">u2")
    rows = levels.reshape(height, -1).view(np.uint8)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    colour = {1: GREY, 3: RGB, 4: RGBA}[channels]
    file.write(SIGNATURE)
    _chunk(file, b"IHDR", b"".join(n.to_bytes(4, "big") for n in (width, height)) + bytes((16, colour, 0, 0, 0)))
    for name, data, *_ in png_text(metadata).chunks:
        _chunk(file, name, data)
    _chunk(file, b"IDAT", zlib.compress(filtered.tobytes(), compress_level))
    _chunk(file, b"IEND", b"")


def write_exr(pixels: np.ndarray, file: IO[bytes], metadata: Metadata, colour: Colour) -> None:
    """(height, width, 1, 3 or 4) in 32-bit floats of linear light, whatever `colour` the pixels come in. Alpha is as it
    was."""
    import OpenEXR

    light = pixels.astype(np.float32)
    light[..., :3] = LIGHT[colour](light[..., :3])
    header = {
        **metadata.texts(),
        "compression": OpenEXR.ZIP_COMPRESSION,
        "type": OpenEXR.scanlineimage,
        "chromaticities": REC_2020 if colour == "HDR" else REC_709,
    }
    names = {1: "Y", 3: "RGB", 4: "RGBA"}[light.shape[-1]]
    channels = {name: np.ascontiguousarray(light[..., i]) for i, name in enumerate(names)}
    OpenEXR.File(header, channels).write(file)


def _linear_of_srgb(value: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1; mirrored below zero."""
    size = np.abs(value)
    light = np.where(size <= 0.04045, size / 12.92, ((size + 0.055) / 1.055) ** 2.4)
    return np.copysign(light, value).astype(np.float32)


def _linear_of_hlg(value: np.ndarray) -> np.ndarray:
    """Light of the scene from hybrid log-gamma, ITU-R BT.2100: 1 is the brightest. Nothing is darker than black."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    size = np.maximum(value.astype(np.float64), 0.0)
    return np.where(size <= 0.5, size**2 / 3.0, (np.exp((size - c) / a) + b) / 12.0).astype(np.float32)


LIGHT: dict[Colour, Callable[[np.ndarray], np.ndarray]] = {
    "sRGB": _linear_of_srgb,
    "HDR": _linear_of_hlg,
    "linear": lambda value: value,
}


def _chunk(file: IO[bytes], name: bytes, data: bytes) -> None:
    file.write(len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big"))
