"""Opening a picture of unknown origin: as RGB pixels, or a typed error that says what is wrong with the file.

Pictures that can be shown right are converted (CMYK, 16-bit, palette, transparency over a colour, EXIF rotation). Those
that would need a guess are refused (several frames) or are broken. It knows files and pixels, no dataset.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from engine.errors import PictureError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
MAX_PIXELS = 178_956_970  # where Pillow itself stops
WHITE = (255, 255, 255)


class EmptyPicture(PictureError):
    en = "{name}: the file is empty (0 bytes). Copy or download it again."
    zh = "{name}：文件为空（0 字节）。请重新复制或下载。"


class NotAPicture(PictureError):
    en = "{name}: this is not a picture that can be read ({reason}). Save it again as PNG, JPEG or WebP."
    zh = "{name}：无法识别为图片（{reason}）。请重新保存为 PNG、JPEG 或 WebP。"


class TruncatedPicture(PictureError):
    en = "{name}: the picture ends in the middle ({reason}). Copy or download it again."
    zh = "{name}：图片数据不完整（{reason}）。请重新复制或下载。"


class PictureTooLarge(PictureError):
    en = "{name}: {size} has more than {limit} million pixels and could fill the memory. Scale it down first."
    zh = "{name}：{size} 超过 {limit} 百万像素，可能耗尽内存。请先缩小图片。"


class AnimatedPicture(PictureError):
    en = "{name}: it has {frames} frames or pages. Save the one you want as a still picture."
    zh = "{name}：包含 {frames} 帧或页。请将需要的一帧另存为静态图片。"


class PictureGone(PictureError):
    en = "{name}: the file is not there any more."
    zh = "{name}：文件已不存在。"


class PictureNotReadable(PictureError):
    en = "{name}: the file can't be read ({reason})."
    zh = "{name}：无法读取文件（{reason}）。"


@dataclass(frozen=True)
class PictureFacts:
    """What the header says. Size as shown, after EXIF rotation."""

    width: int
    height: int
    mode: str
    format: str


def read_facts(data: bytes, name: str) -> PictureFacts:
    """Size, mode and format of an encoded picture; raises the PictureError that says why it can't be used.

    Pixels are decoded only when the end of the file looks cut off: decoding 10,000 pictures takes minutes.
    """
    with _explained(name):
        if not data:
            raise EmptyPicture(name=name)
        image = _opened(io.BytesIO(data), name)
        if not _has_its_end(data, image.format or ""):
            image.load()
        width, height = image.size
        # Pillow decodes a whole PNG to look for EXIF behind its pixels, so that is done only where there is some
        if (image.format != "PNG" or b"eXIf" in data) and image.getexif().get(0x0112, 1) in (5, 6, 7, 8):
            width, height = height, width
        return PictureFacts(width, height, image.mode, image.format or "")


def open_rgb(path: Path, *, at_least: int | None = None, ground: tuple[int, int, int] = WHITE) -> Image.Image:
    """The picture at `path` in RGB, upright, transparency laid over `ground`.

    `at_least`: the caller scales down to this many pixels anyway. A JPEG whose sides are both at least four times
    that is then decoded at a smaller scale (never below twice `at_least`), four times as fast.
    """
    with _explained(path.name):
        if os.stat(path).st_size == 0:
            raise EmptyPicture(name=path.name)
        with open(path, "rb") as file:
            return _decoded(file, path.name, at_least, ground)


def decode_rgb(
    data: bytes, name: str, *, at_least: int | None = None, ground: tuple[int, int, int] = WHITE
) -> Image.Image:
    """As `open_rgb`, of a file's bytes."""
    with _explained(name):
        if not data:
            raise EmptyPicture(name=name)
        return _decoded(io.BytesIO(data), name, at_least, ground)


def _decoded(
    file: io.BytesIO | io.BufferedReader, name: str, at_least: int | None, ground: tuple[int, int, int]
) -> Image.Image:
    image = _opened(file, name)
    if at_least and image.format == "JPEG":
        image.draft("RGB", (2 * at_least, 2 * at_least))
    image.load()
    return to_rgb(ImageOps.exif_transpose(image), ground)


def to_rgb(image: Image.Image, ground: tuple[int, int, int] = WHITE) -> Image.Image:
    """Any Pillow mode as 8-bit RGB. 16-bit grey keeps its high byte; Pillow's own conversion would clip it to white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return Image.fromarray(_high_byte(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        over = Image.new("RGBA", image.size, (*ground, 255))
        over.alpha_composite(image.convert("RGBA"))
        return over.convert("RGB")
    return image.convert("RGB")


def _high_byte(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f":
        top = 1.0 if values.size == 0 or float(values.max()) <= 1.0 else 255.0
        return (np.clip(values / top, 0, 1) * 255).astype(np.uint8)
    if values.size and int(values.max()) > 255:
        return (np.clip(values, 0, 65535).astype(np.uint32) >> 8).astype(np.uint8)
    return values.astype(np.uint8)


def _opened(file: io.BytesIO | io.BufferedReader, name: str) -> Image.Image:
    image = Image.open(file)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise PictureTooLarge(name=name, size=f"{width} x {height}", limit=MAX_PIXELS // 1_000_000)
    # a phone's JPEG holds a second picture for depth or HDR (MPO): its first is the photo
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise AnimatedPicture(name=name, frames=getattr(image, "n_frames", 1))
    return image


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Pillow's and the system's errors as ours."""
    try:
        yield
    except PictureError:
        raise
    except FileNotFoundError as error:
        raise PictureGone(name=name) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureTooLarge(
            name=name, size=str(error).split("(")[-1].split(")")[0], limit=MAX_PIXELS // 1_000_000
        ) from error
    except UnidentifiedImageError as error:
        raise NotAPicture(name=name, reason="unknown format") from error
    except OSError as error:
        if "truncated" in str(error) or "incomplete" in str(error):
            raise TruncatedPicture(name=name, reason=error) from error
        if error.errno is not None:
            raise PictureNotReadable(name=name, reason=error.strerror) from error
        raise NotAPicture(name=name, reason=error) from error
    except (SyntaxError, ValueError, EOFError, MemoryError, TypeError, KeyError, IndexError, OverflowError) as error:
        # what Pillow's decoders raise on damaged data
        raise NotAPicture(name=name, reason=f"{type(error).__name__}: {error}") from error


def _has_its_end(data: bytes, format: str) -> bool:
    if format in ("JPEG", "MPO"):
        return b"\xff\xd9" in data[-65536:]
    if format == "PNG":
        return b"IEND" in data[-4096:]
    if format == "WEBP":
        return len(data) >= 8 + int.from_bytes(data[4:8], "little")
    return False


def silence_large_pictures() -> None:
    """Pillow warns from 89 million pixels on; we refuse at twice that. Called once by a process that decodes."""
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
