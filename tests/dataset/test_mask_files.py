"""Masks as trainers keep them: beside the pictures, in a folder, in a zip; and back."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from engine.dataset.archives import pack, unpack
from engine.dataset.library import Dataset, Library
from engine.dataset.mask_files import add_mask_file, export_masks, import_masks
from engine.dataset.mask_names import mask_name, masks_among
from engine.dataset.masks import mask_path, open_mask, set_mask, set_masks
from engine.dataset.pictures import scan
from engine.dataset.records import Picture
from engine.dataset.view import View
from engine.errors import PictureError
from engine.workspace import Workspace
from tests.dataset.conftest import picture


def left_half(size: tuple[int, int] = (24, 16)) -> Image.Image:
    mask = Image.new("L", size, 0)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    return mask


@pytest.fixture
def masked(dataset: Dataset) -> list[Picture]:
    """a.png and sub/c.jpg have masks, b.png has none."""
    a, _, c = pictures = dataset.store.pictures()
    set_masks(dataset, {a.id: left_half(), c.id: left_half()}, "Masks")
    return pictures


@pytest.mark.parametrize(
    ("paths", "masks"),
    [
        (["a.jpg", "a-masklabel.png"], {"a-masklabel.png": "a"}),
        (["s/a.webp", "masks/s/a.png", "masks/a.png"], {"masks/s/a.png": "s/a"}),
        (["a-masklabel.png", "masks/x.png"], {}),  # their pictures are not there: they are pictures themselves
        (["x.png", "masks.png"], {}),
    ],
)
def test_a_file_is_a_mask_where_its_picture_is(paths: list[str], masks: dict[str, str]) -> None:
    assert masks_among(paths) == masks


@pytest.mark.parametrize("layout", ["beside", "folder"])
def test_masks_go_out_as_large_as_their_pictures_and_come_back(
    dataset: Dataset, masked: list[Picture], layout: str
) -> None:
    assert export_masks(dataset, layout=layout).done == 2  # type: ignore[arg-type]
    names = [mask_name(path, layout) for path in ("a.png", "sub/c.jpg")]  # type: ignore[arg-type]
    assert names == (
        ["a-masklabel.png", "sub/c-masklabel.png"] if layout == "beside" else ["masks/a.png", "masks/sub/c.png"]
    )
    written = Image.open(dataset.root / names[0])
    assert (written.mode, written.size) == ("L", (48, 32))
    assert (written.getpixel((4, 16)), written.getpixel((44, 16))) == (255, 0)
    assert export_masks(dataset, layout=layout).unchanged == 2  # type: ignore[arg-type]

    report = scan(dataset)
    assert (report.masks, report.added, report.gone) == (2, 0, 0)
    set_masks(dataset, {masked[0].id: None, masked[2].id: None}, "None")
    assert import_masks(dataset).done == 2
    marks = dataset.store.marks("mask")
    assert sorted(marks) == [masked[0].id, masked[2].id]
    back = open_mask(mask_path(dataset, marks[masked[0].id]), (48, 32))
    assert (back.getpixel((4, 16)), back.getpixel((44, 16))) == (255, 0)
    dataset.store.undo()
    assert dataset.store.marks("mask") == {}


def test_a_mask_that_somebody_drew_elsewhere_is_left_alone(dataset: Dataset, masked: list[Picture]) -> None:
    theirs = dataset.root / "a-masklabel.png"
    Image.new("L", (48, 32), 128).save(theirs)
    before = theirs.read_bytes()
    report = export_masks(dataset, layout="beside")
    assert (report.done, list(report.problems)) == (1, ["a-masklabel.png"])
    assert theirs.read_bytes() == before
    assert export_masks(dataset, layout="beside", overwrite=True).problems == {}
    assert theirs.read_bytes() != before


def test_the_file_of_a_mask_that_was_taken_away_goes_too(dataset: Dataset, masked: list[Picture]) -> None:
    export_masks(dataset, layout="beside")
    set_mask(dataset, masked[0], None, "None")
    export_masks(dataset, layout="beside")
    assert not (dataset.root / "a-masklabel.png").exists()
    assert (dataset.root / "sub" / "c-masklabel.png").exists()


def test_a_damaged_mask_is_listed_and_the_rest_is_read(dataset: Dataset, masked: list[Picture]) -> None:
    export_masks(dataset, layout="folder")
    (dataset.root / "masks" / "a.png").write_bytes(b"no png")
    report = import_masks(dataset)
    assert (report.done, list(report.problems)) == (1, ["masks/a.png"])


def test_two_pictures_of_one_name_do_not_share_a_mask(dataset: Dataset) -> None:
    picture(dataset.root / "a.webp", 200)
    scan(dataset)
    set_masks(dataset, {p.id: left_half() for p in dataset.store.pictures()}, "Masks")
    report = export_masks(dataset, layout="beside")
    assert report.problems["a-masklabel.png"]["code"] == "SharedMask"


@pytest.mark.usefixtures("masked")
def test_a_zip_brings_masks_along(workspace: Workspace, dataset: Dataset, tmp_path: Path) -> None:
    target = tmp_path / "set.zip"
    pack(dataset, View(dataset.store), target)
    assert "masks/sub/c.png" in zipfile.ZipFile(target).namelist()
    with Library(workspace).create("copy") as copy:
        unpack(copy, target, "set.zip")
        assert len(copy.store.pictures()) == 3
        assert import_masks(copy).done == 2


def test_a_mask_that_is_sent_belongs_to_the_picture_of_its_name(dataset: Dataset) -> None:
    data = io.BytesIO()
    left_half().save(data, "PNG")
    assert add_mask_file(dataset, "nobody-masklabel.png", data.getvalue()) is None
    assert add_mask_file(dataset, "a-masklabel.png", data.getvalue()) == "a-masklabel.png"
    assert list(dataset.store.marks("mask")) == [dataset.store.pictures()[0].id]
    with pytest.raises(PictureError, match=r"b-masklabel\.png"):
        add_mask_file(dataset, "b-masklabel.png", b"no png")
    assert not (dataset.root / "b-masklabel.png").exists()


def test_a_mask_that_is_a_link_out_of_the_folder_is_listed_and_not_followed(dataset: Dataset, tmp_path: Path) -> None:
    left_half().save(tmp_path / "outside.png")
    (dataset.root / "a-masklabel.png").symlink_to(tmp_path / "outside.png")
    left_half().save(dataset.root / "b-masklabel.png")
    report = import_masks(dataset)
    assert (report.done, report.problems["a-masklabel.png"]["code"]) == (1, "OutsideWorkspace")
    set_masks(dataset, {dataset.store.pictures()[0].id: left_half((8, 8))}, "Mask")
    before = (tmp_path / "outside.png").read_bytes()
    assert "a-masklabel.png" in export_masks(dataset, layout="beside", overwrite=True).problems
    assert (tmp_path / "outside.png").read_bytes() == before
