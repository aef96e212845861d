from __future__ import annotations

import io

import pytest
from PIL import Image

from engine.dataset.library import Dataset, Library
from engine.dataset.masks import BadCrop, mask_of_regions, mask_path, open_mask, read_mask, set_crop, set_mask
from engine.dataset.pictures import scan
from engine.dataset.query import matching
from engine.dataset.records import Picture
from engine.dataset.regions import Region, add_regions, regions_of
from engine.dataset.view import View
from engine.errors import PictureError
from engine.workspace import Workspace
from tests.dataset.conftest import picture


@pytest.fixture
def first(dataset: Dataset) -> Picture:
    return dataset.store.pictures()[0]


def half(size: tuple[int, int] = (48, 32)) -> Image.Image:
    """White on the left."""
    mask = Image.new("L", size, 0)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    return mask


def test_a_mask_is_kept_and_undo_brings_the_older_one_back(dataset: Dataset, first: Picture) -> None:
    set_mask(dataset, first, half(), "Mask")
    older = dataset.store.marks("mask")[first.id]
    set_mask(dataset, first, half((24, 16)), "Mask again")
    assert dataset.store.marks("mask")[first.id] != older
    dataset.store.undo()
    assert dataset.store.marks("mask") == {first.id: older}
    opened = open_mask(mask_path(dataset, older), (96, 64))
    assert opened.size == (96, 64)
    assert (opened.getpixel((10, 10)), opened.getpixel((90, 10))) == (255, 0)
    dataset.store.undo()
    assert dataset.store.marks("mask") == {}


def test_a_mask_that_is_white_all_over_is_none(dataset: Dataset, first: Picture) -> None:
    set_mask(dataset, first, half(), "Mask")
    set_mask(dataset, first, Image.new("L", (48, 32), 255), "All")
    assert dataset.store.marks("mask") == {}


def test_the_opaque_part_of_a_drawing_is_its_mask(first: Picture) -> None:
    drawn = Image.new("RGBA", (48, 32), (255, 0, 0, 0))
    drawn.paste((255, 0, 0, 255), (0, 0, 24, 32))
    encoded = io.BytesIO()
    drawn.save(encoded, "PNG")
    assert read_mask(encoded.getvalue(), first).tobytes() == half().tobytes()
    with pytest.raises(PictureError, match=r"a\.png"):
        read_mask(b"no png", first)


def test_a_mask_of_boxes_and_polygons_covers_them(dataset: Dataset) -> None:
    picture(dataset.root / "square.png", size=(100, 100))
    scan(dataset)
    square = next(p for p in dataset.store.pictures() if p.name == "square.png")
    regions = [Region("cat", "box", (0.1, 0.1, 0.4, 0.4)), Region("ear", "polygon", (0.6, 0.6, 0.9, 0.6, 0.6, 0.9))]
    mask = mask_of_regions(regions, square)
    assert (mask.getpixel((25, 25)), mask.getpixel((65, 65)), mask.getpixel((88, 88))) == (255, 255, 0)
    wider = mask_of_regions(regions, square, grow=0.1)
    assert (mask.getpixel((45, 25)), wider.getpixel((45, 25))) == (0, 255)


def test_a_region_survives_the_store(dataset: Dataset, first: Picture) -> None:
    found = [Region("cat", "box", (0.1, 0.2, 0.5, 0.75)), Region("ear", "polygon", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6))]
    source = dataset.store.source("captioner:florence", "v1").id
    add_regions(dataset.store, source, {first.id: found})
    assert regions_of(dataset.store, first.id) == {source: found}


@pytest.mark.parametrize("box", [(-1, 0, 30, 30), (0, 0, 49, 30), (30, 0, 10, 30), (0, 0, 20, 4), (0, 0, 20)])
def test_a_crop_that_does_not_fit_is_refused(dataset: Dataset, first: Picture, box: tuple[int, ...]) -> None:
    with pytest.raises(BadCrop, match="48 x 32"):
        set_crop(dataset, first, box, "Crop")


def test_crops_and_masks_are_found_by_filters_and_in_a_store_opened_again(
    workspace: Workspace, dataset: Dataset, first: Picture
) -> None:
    set_crop(dataset, first, (0, 0, 20.4, 20), "Crop")
    set_mask(dataset, dataset.store.pictures()[1], half(), "Mask")
    with Library(workspace).open("set") as again:
        view = View(again.store)
        assert again.store.marks("crop") == {first.id: [0, 0, 20, 20]}
        assert matching(view, "crop:yes").tolist() == [True, False, False]
        assert matching(view, "mask:yes OR crop:yes").tolist() == [True, True, False]
        assert matching(view, "mask:no").tolist() == [True, False, True]
        again.store.undo()
        again.store.undo()
        assert matching(view, "crop:yes OR mask:yes").tolist() == [False] * 3
    assert set_crop(dataset, first, (0, 0, 48, 32), "The whole picture") is None
