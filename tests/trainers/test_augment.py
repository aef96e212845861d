from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from trainers.augment import Variant, variant_of, varied
from trainers.settings import TrainSettings

SOME = TrainSettings(augment_rotation=20, augment_scale=0.5, augment_colour=0.4)


def test_a_variant_is_the_same_again_and_another_for_every_number_picture_and_seed() -> None:
    one = variant_of(SOME, "a", 1)
    assert one == variant_of(SOME, "a", 1)
    others = [
        variant_of(SOME, "a", 2),
        variant_of(SOME, "b", 1),
        variant_of(SOME.model_copy(update={"seed": 1}), "a", 1),
    ]
    assert len({one, *others}) == 4
    assert variant_of(SOME, "a", 0) is None


def test_variants_stay_within_what_is_set() -> None:
    found = [variant_of(SOME, "a", n) for n in range(1, 200)]
    assert all(v and abs(v.angle) <= 20 and 1 <= v.zoom <= 1.5 for v in found)
    assert all(v and 0.8 <= v.brightness <= 1.2 and 0.6 <= v.saturation <= 1.4 for v in found)
    assert min(v.angle for v in found if v) < -15 and max(v.angle for v in found if v) > 15


@pytest.mark.parametrize("size", [(60, 60), (90, 40), (40, 120)])
@pytest.mark.parametrize("angle", [-45.0, -10.0, 3.0, 30.0, 45.0])
@pytest.mark.parametrize("at", [(-1.0, -1.0), (0.0, 0.0), (1.0, 1.0)])
def test_turned_pictures_have_no_empty_corners(size: tuple[int, int], angle: float, at: tuple[float, float]) -> None:
    white = Image.new("RGB", size, "white")
    turned = varied(white, Variant(angle=angle, zoom=1.3, across=at[0], down=at[1]))
    assert turned.size == size
    assert np.asarray(turned).min() >= 250


def test_a_closer_look_shows_the_part_it_says() -> None:
    left_red = Image.new("RGB", (100, 50), "blue")
    left_red.paste((255, 0, 0), (0, 0, 50, 50))
    close = varied(left_red, Variant(zoom=2.0, across=-1.0))
    assert close.getpixel((50, 25)) == (255, 0, 0) and close.getpixel((96, 25)) == (255, 0, 0)
    other = varied(left_red, Variant(zoom=2.0, across=1.0))
    assert other.getpixel((4, 25)) == (0, 0, 255)


def test_a_right_angle_turns_against_the_clock() -> None:
    corner = Image.new("RGB", (60, 60), "black")
    corner.paste((255, 255, 255), (36, 6, 54, 24))  # right, above
    turned = np.asarray(varied(corner, Variant(angle=45.0)).convert("L"))
    bright = np.argwhere(turned > 128).mean(axis=0)
    assert bright[0] < 20 and 25 < bright[1] < 35  # now in the middle, above


def test_masks_are_moved_but_not_recoloured() -> None:
    grey = Image.new("L", (40, 40), 100)
    change = Variant(angle=10.0, brightness=1.5, contrast=1.5)
    assert set(np.asarray(varied(grey, change, colours=False)).ravel()) <= {99, 100, 101}
    assert np.asarray(varied(grey, change)).mean() > 140
