"""Picture files as arrays, and arrays as numbered picture files. Knows numpy and Pillow, no torch."""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps, ImageSequence

from engine.errors import PathError, PictureError
from engine.graph.limits import MAX_PIXELS, MAX_SIDE
from engine.graph.metadata import UnreadablePicture
from engine.workspace import inside

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_LONGEST_NAME = 200  # bytes; most file systems allow 255


class PictureTooBig(PictureError):
    en = "'{name}' is {width} x {height} pixels in {frames} frame(s). At most {side} a side and {pixels} in all fit."
    zh = "“{name}”有 {frames} 帧，每帧 {width} x {height} 像素。每边最多 {side} 像素，总计最多 {pixels} 像素。"


class BadFileName(PathError):
    en = "'{name}' can't be the start of a file name: {reason}."
    zh = "“{name}”不能作为文件名的开头：{reason_zh}。"


def read_picture(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """(pixels, mask): float32 (frames, height, width, 3) in 0..1 and (frames, height, width), 1 where the picture is
    transparent; None without an alpha channel. Turned as EXIF says; frames of other sizes than the first are left out.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            Image.init()
            with Image.open(path, formats=[kind for kind in FORMATS if kind in Image.OPEN]) as picture:
                _check_size(path, picture)
                frames = list(_frames(picture))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise UnreadablePicture(name=path.name, reason=_why(path, error)) from error
    first = frames[0][0].shape
    frames = [frame for frame in frames if frame[0].shape == first]
    pixels = np.stack([pixels for pixels, _ in frames])
    if all(mask is None for _, mask in frames):
        return pixels, None
    return pixels, np.stack([np.zeros(first[:2], np.float32) if mask is None else mask for _, mask in frames])


def to_picture(pixels: np.ndarray) -> Image.Image:
    """(height, width, 1, 3 or 4) in 0..1 -> an 8-bit picture. Values are cut, not rounded, as in ComfyUI."""
    levels = np.clip(pixels * 255.0, 0, 255).astype(np.uint8)
    return Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)


def mark_as_draft(picture: Image.Image) -> Image.Image:
    """A copy with a frame and the word DRAFT, readable at any size."""
    marked = picture.convert("RGB")
    draw = ImageDraw.Draw(marked)
    width, height = marked.size
    line = max(2, min(width, height) // 64)
    draw.rectangle((0, 0, width - 1, height - 1), outline=(255, 0, 255), width=line)
    font_size = max(10, min(width, height) // 10)
    left, top, right, bottom = draw.textbbox((0, 0), "DRAFT", font_size=font_size)
    box = (line, line, line + right - left + 2 * line, line + bottom - top + 2 * line)
    draw.rectangle(box, fill=(255, 0, 255))
    draw.text((2 * line - left, 2 * line - top), "DRAFT", fill=(255, 255, 255), font_size=font_size)
    return marked


@dataclass(frozen=True)
class Numbered:
    """Where the next files of a prefix go: `folder / f"{stem}_{number:05}_.png"`, number counting up from `first`."""

    folder: Path
    subfolder: str
    stem: str
    first: int

    def name(self, offset: int, suffix: str) -> str:
        """Name of the file `offset` after the first; `%batch_num%` in the prefix becomes the offset."""
        return f"{self.stem.replace('%batch_num%', str(offset))}_{self.first + offset:05}_{suffix}"


def next_files(root: Path, prefix: str, width: int = 0, height: int = 0) -> Numbered:
    """ComfyUI's numbering: subfolders in the prefix are made inside `root`; the number goes on from what is there.
    Raises PathError for a prefix that leaves `root` or is no file name."""
    written = _filled_in(prefix, width, height).replace("\\", "/")
    subfolder, _, stem = written.rpartition("/")
    subfolder = "/".join(part for part in subfolder.split("/") if part not in ("", ".")) if subfolder else ""
    if written.startswith("/"):
        raise BadFileName(
            name=prefix, reason="it must be relative to the output folder", reason_zh="必须是相对于输出文件夹的路径"
        )
    if any(ord(character) < 32 for character in written):
        shown = prefix.encode("unicode_escape").decode()
        raise BadFileName(name=shown, reason="it holds control characters", reason_zh="含有控制字符")
    if any(len(part.encode("utf-8", "replace")) > _LONGEST_NAME for part in written.split("/")):
        raise BadFileName(
            name=prefix[:80] + "...",
            reason=f"a part of it is longer than {_LONGEST_NAME} bytes",
            reason_zh=f"其中一段超过 {_LONGEST_NAME} 字节",
        )
    folder = inside(root, subfolder) if subfolder else root
    folder.mkdir(parents=True, exist_ok=True)
    pattern = re.compile(re.escape(stem).replace("%batch_num%", r"\d+") + r"_(\d+)_", re.IGNORECASE)
    numbers = (int(found[1]) for name in os.listdir(folder) if (found := pattern.match(name)))
    return Numbered(folder, subfolder, stem, max(numbers, default=0) + 1)


def _frames(picture: Image.Image) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    if picture.format == "MPO":  # a photo with a second view or a thumbnail, not an animation
        yield _arrays(picture)
        return
    for frame in ImageSequence.Iterator(picture):
        yield _arrays(frame)


def _arrays(frame: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    frame = ImageOps.exif_transpose(frame)
    if frame.mode.startswith("I"):  # 16 bits a pixel, grey; Pillow would cut them off at 255
        grey = np.clip(np.asarray(frame).astype(np.float32) / 65535.0, 0.0, 1.0)
        return np.repeat(grey[..., None], 3, axis=-1), None
    mask = None
    if frame.has_transparency_data:
        alpha = frame.convert("RGBA").getchannel("A")
        mask = 1.0 - np.asarray(alpha).astype(np.float32) / 255.0
    return np.asarray(frame.convert("RGB")).astype(np.float32) / 255.0, mask


def _check_size(path: Path, picture: Image.Image) -> None:
    width, height = picture.size
    frames = getattr(picture, "n_frames", 1) if picture.format != "MPO" else 1
    if max(width, height) > MAX_SIDE or width * height * frames > MAX_PIXELS:
        raise PictureTooBig(name=path.name, width=width, height=height, frames=frames, side=MAX_SIDE, pixels=MAX_PIXELS)


def _why(path: Path, error: Exception) -> str:
    if path.is_file() and path.stat().st_size == 0:
        return "the file is empty"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"it is none of {', '.join(FORMATS)}"
    return str(error)[:200] or type(error).__name__


def _filled_in(prefix: str, width: int, height: int) -> str:
    """ComfyUI's patterns: %width% %height% %year% ... %second%, and its editor's %date:yyyy-MM-dd%."""
    now = time.localtime()
    values = {
        "width": str(width),
        "height": str(height),
        "year": time.strftime("%Y", now),
        "month": time.strftime("%m", now),
        "day": time.strftime("%d", now),
        "hour": time.strftime("%H", now),
        "minute": time.strftime("%M", now),
        "second": time.strftime("%S", now),
    }
    for name, value in values.items():
        prefix = prefix.replace(f"%{name}%", value)
    parts = {"yyyy": "%Y", "yy": "%y", "MM": "%m", "dd": "%d", "hh": "%H", "mm": "%M", "ss": "%S"}

    def written(match: re.Match[str]) -> str:
        return re.sub("yyyy|yy|MM|dd|hh|mm|ss", lambda part: time.strftime(parts[part[0]], now), match[1])

    return re.sub(r"%date:([^%/\\]+)%", written, prefix)
