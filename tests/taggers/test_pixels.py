from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taggers.pixels import batch, fitted, load
from taggers.spec import Pixels

WIDE = Image.new("RGB", (40, 20), (255, 0, 0))
PLAIN = Pixels(layout="NHWC", channels="RGB", fit="pad")


def rows(image: Image.Image) -> list[tuple[int, ...]]:
    """The middle column from top to bottom."""
    return [tuple(row) for row in np.asarray(image)[:, image.width // 2]]


@pytest.mark.parametrize("fit", ["pad", "scale and pad"])
def test_padding_centres_the_picture_on_its_colour(fit: str) -> None:
    pixels = Pixels(layout="NHWC", channels="RGB", fit=fit, pad_colour=(1, 2, 3))  # type: ignore[arg-type]
    assert rows(fitted(WIDE, pixels, 40)) == [(1, 2, 3)] * 10 + [(255, 0, 0)] * 20 + [(1, 2, 3)] * 10


def test_squash_leaves_nothing_free() -> None:
    assert set(rows(fitted(WIDE, Pixels(layout="NHWC", channels="RGB", fit="squash"), 16))) == {(255, 0, 0)}


def test_a_tiny_picture_is_enlarged_and_a_line_survives() -> None:
    assert fitted(Image.new("RGB", (1, 3)), PLAIN, 32).size == (32, 32)
    scaled = Pixels(layout="NHWC", channels="RGB", fit="scale and pad")
    assert fitted(Image.new("RGB", (1, 4000)), scaled, 32).size == (32, 32)


def test_layout_channels_and_normalisation() -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    assert batch([red], PLAIN).shape == (1, 4, 4, 3)
    assert batch([red], PLAIN)[0, 0, 0].tolist() == [255, 0, 0]
    bgr = Pixels(layout="NCHW", channels="BGR", fit="pad", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    values = batch([red, red], bgr)
    assert values.shape == (2, 3, 4, 4) and values.dtype == np.float32 and values.flags.c_contiguous
    assert values[1, :, 0, 0].tolist() == [-1, -1, 1]


def test_a_large_jpeg_gives_nearly_the_scores_of_a_full_decode(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(values).resize((1200, 1600), Image.Resampling.BICUBIC).save(tmp_path / "a.jpg", quality=95)
    draft = load(tmp_path / "a.jpg", PLAIN, 100).astype(np.float32)
    full = np.asarray(fitted(Image.open(tmp_path / "a.jpg"), PLAIN, 100), np.float32)
    assert draft.shape == (100, 100, 3)
    assert np.abs(draft - full).mean() < 0.5
