"""Masks and crops: which part of a picture counts. White is what a training learns, black what it leaves alone.

A mask is a grey PNG under `.easel/masks`, named by its content, so that undo finds the older one. It may be smaller
than its picture; whoever uses it scales it. A crop is a box in pixels of the upright picture.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageFilter, UnidentifiedImageError

from engine.dataset.decoding import NotAPicture, PictureGone
from engine.dataset.library import OURS, Dataset
from engine.dataset.pictures import content_hash
from engine.dataset.records import Event, Picture
from engine.dataset.regions import Region, mask_of
from engine.errors import InputError
from engine.workspace import inside, replacing

LONGEST = 2048  # pixels that a mask's longer side is kept at
SMALLEST_CROP = 16


class BadCrop(InputError):
    en = "The crop {box} of {name} can't be used: it must lie inside {width} x {height} and be {least} pixels or more."
    zh = "无法使用 {name} 的裁剪区域 {box}：必须位于 {width} x {height} 之内，且边长至少 {least} 像素。"


def set_mask(dataset: Dataset, picture: Picture, mask: Image.Image | None, title: str) -> Event | None:
    """Give a picture a mask, or take its away. One that is white all over is none."""
    return set_masks(dataset, {picture.id: mask}, title)


def set_masks(dataset: Dataset, masks: Mapping[int, Image.Image | None], title: str) -> Event | None:
    """Masks by picture id, as one event."""
    names = {id: _kept(dataset, mask) if mask is not None else None for id, mask in masks.items()}
    return dataset.store.mark("mask", names, title)


def mask_path(dataset: Dataset, name: str) -> Path:
    """The file of a mask by its name among the marks."""
    return inside(dataset.folder / OURS / "masks", f"{name}.png")


def open_mask(path: Path, size: tuple[int, int]) -> Image.Image:
    """A mask as grey of this (width, height). Raises PictureError where the file is gone or damaged."""
    try:
        return Image.open(path).convert("L").resize(size, Image.Resampling.BILINEAR)
    except FileNotFoundError as error:
        raise PictureGone(name=path.name) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise NotAPicture(name=path.name, reason=str(error)) from error


def read_mask(data: bytes, picture: Picture) -> Image.Image:
    """A mask as the page draws it: grey, or white where it is opaque. Raises NotAPicture."""
    try:
        image = Image.open(io.BytesIO(data))
        if image.width * image.height > 4 * LONGEST * LONGEST:
            raise NotAPicture(name=picture.name, reason=f"its mask has {image.width} x {image.height} pixels")
        return (image.getchannel("A") if image.mode == "RGBA" else image).convert("L")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise NotAPicture(name=picture.name, reason=f"its mask is no PNG: {error}") from error


def mask_of_regions(regions: Iterable[Region], picture: Picture, grow: float = 0.0) -> Image.Image:
    """What regions cover, in white. `grow` widens it by this share of the shorter side; the edge is soft."""
    scale = min(1.0, LONGEST / max(picture.width, picture.height))
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    mask, side = mask_of(regions, *size), min(size)
    if grow > 0:
        mask = mask.filter(ImageFilter.GaussianBlur(grow * side)).point([0] * 9 + [255] * 247)
    return mask.filter(ImageFilter.GaussianBlur(side / 256))


def set_crop(dataset: Dataset, picture: Picture, box: Iterable[float] | None, title: str) -> Event | None:
    """Train only on this part (left, top, right, bottom) of a picture; None for the whole. Raises BadCrop."""
    return dataset.store.mark("crop", {picture.id: None if box is None else checked_crop(picture, box)}, title)


def checked_crop(picture: Picture, box: Iterable[float]) -> list[int] | None:
    """A crop in whole pixels; None where it is the whole picture."""
    found = [round(float(value)) for value in box]
    fits = len(found) == 4 and 0 <= found[0] < found[2] <= picture.width and 0 <= found[1] < found[3] <= picture.height
    if not fits or min(found[2] - found[0], found[3] - found[1]) < min(SMALLEST_CROP, picture.width, picture.height):
        size: dict[str, Any] = {"width": picture.width, "height": picture.height, "least": SMALLEST_CROP}
        raise BadCrop(box=found, name=picture.name, **size)
    return None if found == [0, 0, picture.width, picture.height] else found


def _kept(dataset: Dataset, mask: Image.Image) -> str | None:
    grey = mask.convert("L")
    if grey.getextrema() == (255, 255):
        return None
    grey.thumbnail((LONGEST, LONGEST))
    encoded = io.BytesIO()
    grey.save(encoded, "PNG", optimize=True)
    name = content_hash(encoded.getvalue())
    path = mask_path(dataset, name)
    if not path.is_file():
        with replacing(path) as file:
            file.write(encoded.getvalue())
    return name
