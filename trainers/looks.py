"""A picture as a step shows it: cut to its crop, varied, fitted to its bucket, mirrored; and its mask with it.

The trainer encodes what comes out of here, and the Dataset tab shows the same: there is no second way.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from engine.dataset.decoding import open_rgb
from engine.dataset.masks import open_mask
from trainers.augment import Variant, varied
from trainers.buckets import Bucket, fit
from trainers.data import Item


@dataclass(frozen=True)
class Look:
    """How a picture is shown once. `number` names its variant among those of the run."""

    bucket: Bucket
    flip: bool = False
    number: int = 0
    variant: Variant | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What a cached result depends on, beside the picture and its crop. A plain look has the shortest."""
        plain = (self.bucket.width, self.bucket.height, self.flip)
        return plain if self.variant is None else (*plain, *vars(self.variant).values())


def look_at(item: Item, look: Look) -> Image.Image:
    """The picture as it goes into the VAE, in the bucket's size. Raises PictureError."""
    return _shown(item, look, open_rgb(Path(item.path)), colours=True)


def look_at_mask(item: Item, look: Look) -> Image.Image | None:
    """Its mask in grey, in the same shape; None where it has none. Raises PictureError."""
    if not item.mask:
        return None
    whole = item.whole or (item.width, item.height)
    return _shown(item, look, open_mask(Path(item.mask), whole), colours=False)


def _shown(item: Item, look: Look, image: Image.Image, *, colours: bool) -> Image.Image:
    if item.crop:
        image = image.crop(item.crop)
    if look.variant:
        image = varied(image, look.variant, colours=colours)
    image = fit(image, look.bucket)
    return ImageOps.mirror(image) if look.flip else image
