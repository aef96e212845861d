"""Decoding pictures in the server: one limit of pixels for all, few at once, every mode as it should look."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import Image

from engine.dataset.decoding import to_rgb
from engine.errors import PictureError
from engine.graph.limits import MAX_PIXELS, MAX_SIDE
from engine.graph.metadata import DAMAGE

AT_ONCE = 2  # each may take a gigabyte
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "MPO")


class NotAPicture(PictureError):
    en = "'{name}' is not a picture that can be read ({reason})."
    zh = "“{name}”不是可读取的图片（{reason}）。"


class PictureTooLarge(PictureError):
    en = "'{name}' is {width} x {height} pixels. A side may have at most {limit}, the whole {most} million."
    zh = "“{name}”为 {width} x {height} 像素，每边最多 {limit}，总计最多 {most} 百万像素。"


@contextmanager
def opened(file: IO[bytes] | Path, name: str) -> Iterator[Image.Image]:
    """A picture whose header is read and whose size is fine. Whatever goes wrong inside is NotAPicture."""
    name = name[:80]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as picture:
                width, height = picture.size
                if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
                    most = MAX_PIXELS // 1_000_000
                    raise PictureTooLarge(name=name, width=width, height=height, limit=MAX_SIDE, most=most)
                yield picture
    except DAMAGE as error:
        raise NotAPicture(name=name, reason=str(error)[:120] or type(error).__name__) from error


def shown(file: IO[bytes] | Path, name: str, longest: int = 0) -> Image.Image:
    """The picture in 8 bits, RGB or RGBA; with `longest` its longer side has at most so many pixels."""
    with opened(file, name) as picture:
        if longest:
            picture.draft(None, (longest * 2, longest * 2))
        picture.load()
        factor = max(picture.size) // (longest * 2) if longest else 1
        small = picture.reduce(factor) if factor > 1 and picture.mode in ("L", "LA", "RGB", "RGBA", "CMYK") else picture
        deep = small.mode.startswith("I") or small.mode == "F"
        made = small.convert("RGBA") if small.has_transparency_data and not deep else to_rgb(small)
        if longest:
            made.thumbnail((longest, longest))
        return made if made is not picture else made.copy()
