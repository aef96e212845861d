"""Small changes of a picture that make a small set larger: a turn, a closer look, other light and colour.

A variant is a function of the seed, the picture and its number, and never written to a file. Number 0 is the picture as
it is. Turning and looking closer keep the picture's size and show no empty corners.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image, ImageEnhance

from trainers.seeds import dice
from trainers.settings import TrainSettings


@dataclass(frozen=True)
class Variant:
    """Degrees against the clock; how much closer (1 is whole); where, -1 to 1 of what is free; factors of colour."""

    angle: float = 0.0
    zoom: float = 1.0
    across: float = 0.0
    down: float = 0.0
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0


def variant_of(settings: TrainSettings, hash: str, number: int) -> Variant | None:
    """The variant of a picture with this number; none for 0."""
    if not number:
        return None
    rolls = dice(settings.seed, "variant", hash, number)
    turn, closer, colour = settings.augment_rotation, settings.augment_scale, settings.augment_colour
    return Variant(
        angle=rolls.uniform(-turn, turn),
        zoom=rolls.uniform(1.0, 1.0 + closer),
        across=rolls.uniform(-1.0, 1.0),
        down=rolls.uniform(-1.0, 1.0),
        brightness=rolls.uniform(1.0 - colour / 2, 1.0 + colour / 2),
        contrast=rolls.uniform(1.0 - colour / 2, 1.0 + colour / 2),
        saturation=rolls.uniform(1.0 - colour, 1.0 + colour),
    )


def varied(image: Image.Image, variant: Variant, *, colours: bool = True) -> Image.Image:
    """A picture as a variant shows it, in its own size. `colours` off leaves them alone: for masks."""
    moved = _moved(image, variant) if variant.angle or variant.zoom != 1.0 else image
    if not colours:
        return moved
    for change, factor in (
        (ImageEnhance.Brightness, variant.brightness),
        (ImageEnhance.Contrast, variant.contrast),
        (ImageEnhance.Color, variant.saturation),
    ):
        if factor != 1.0:
            moved = change(moved).enhance(factor)
    return moved


def _moved(image: Image.Image, variant: Variant) -> Image.Image:
    """Turned about a point and enlarged until the corners are full, in one resampling."""
    width, height = image.size
    angle = math.radians(variant.angle)
    cos, sin = math.cos(angle), math.sin(angle)
    # the turned frame must lie inside the picture: its half extents, per half side of the frame
    reach = abs(cos) + abs(sin) * max(width / height, height / width)
    scale = 1.0 / (reach * variant.zoom)  # pixels of the picture for one of the frame
    half_x = scale * (abs(cos) * width + abs(sin) * height) / 2
    half_y = scale * (abs(sin) * width + abs(cos) * height) / 2
    centre_x = width / 2 + variant.across * max(0.0, width / 2 - half_x)
    centre_y = height / 2 + variant.down * max(0.0, height / 2 - half_y)
    a, b, d, e = scale * cos, -scale * sin, scale * sin, scale * cos
    c = centre_x - a * width / 2 - b * height / 2
    f = centre_y - d * width / 2 - e * height / 2
    return image.transform(image.size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BICUBIC)
