"""Aspect ratio buckets: the sizes pictures are trained at, which picture goes where, and how it is cut to size.

All sizes have about resolution x resolution pixels. It knows no dataset.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image

from trainers.settings import TrainSettings


@dataclass(frozen=True, order=True)
class Bucket:
    width: int
    height: int

    @property
    def ratio(self) -> float:
        return self.width / self.height


def sizes_of(settings: TrainSettings) -> list[Bucket]:
    """The sizes pictures may have, the square one first."""
    step = settings.bucket_step
    side = max(step, round(settings.resolution / step) * step)
    square = Bucket(side, side)
    others = make_buckets(settings.resolution, *settings.bucket_range, step) if settings.buckets else []
    return [square, *(bucket for bucket in others if bucket != square)]


def make_buckets(resolution: int, low: int, high: int, step: int) -> list[Bucket]:
    """Every width from low to high in steps, each with the height that fills the area; the square one always.

    The square side is rounded to the step as well (at least one step).
    """
    square = max(step, round(resolution / step) * step)
    found = {Bucket(square, square)}
    for width in range(math.ceil(low / step) * step, high + 1, step):
        height = min(high, resolution * resolution // width) // step * step
        if width and height >= max(low, step):
            found |= {Bucket(width, height), Bucket(height, width)}
    return sorted(found)


def nearest_bucket(width: int, height: int, buckets: list[Bucket]) -> Bucket:
    """The bucket whose shape is nearest, as a ratio; the larger one of two equally near."""
    ratio = math.log(width / height)
    return min(buckets, key=lambda b: (abs(math.log(b.ratio) - ratio), -b.width * b.height, b))


def fit(image: Image.Image, bucket: Bucket) -> Image.Image:
    """Scaled until it covers the bucket, then cut in the middle. At most one side loses anything."""
    size = _covering(image.width, image.height, bucket)
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    left, top = offset(*size, bucket)
    return image.crop((left, top, left + bucket.width, top + bucket.height))


def kept_box(width: int, height: int, bucket: Bucket) -> tuple[float, float, float, float]:
    """What `fit` leaves of a picture, as shares of its sides (left, top, right, bottom)."""
    covering = _covering(width, height, bucket)
    across, down = bucket.width / covering[0], bucket.height / covering[1]
    return (1 - across) / 2, (1 - down) / 2, (1 + across) / 2, (1 + down) / 2


def offset(width: int, height: int, bucket: Bucket) -> tuple[int, int]:
    """How much `fit` cuts off on the left and on top of a picture of that size, in pixels of the bucket."""
    covering = _covering(width, height, bucket)
    return (covering[0] - bucket.width) // 2, (covering[1] - bucket.height) // 2


def _covering(width: int, height: int, bucket: Bucket) -> tuple[int, int]:
    scale = max(bucket.width / width, bucket.height / height)
    return max(bucket.width, round(width * scale)), max(bucket.height, round(height * scale))
