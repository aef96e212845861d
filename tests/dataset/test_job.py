from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from engine.dataset.archives import NotAZip
from engine.dataset.job import MeasureSettings, ScanSettings, UnpackSettings, look_through, run, unpack, uploads
from engine.dataset.library import Dataset, Library
from engine.dataset.query import matching
from engine.dataset.view import View
from engine.errors import Cancelled, NotFound
from engine.workspace import Workspace
from tests.taggers.conftest import Context


def draw(workspace: Workspace) -> None:
    """Five pictures and a smaller copy of the first."""
    folder = workspace.datasets / "set"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for i in range(5):
        image = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize(
            (320, 240), Image.Resampling.BICUBIC
        )
        image.save(folder / f"p{i}.png")
        if i == 0:
            image.resize((160, 120)).save(folder / "copy.jpg")


def test_the_job_measures_once_and_counts_near_copies(workspace: Workspace) -> None:
    draw(workspace)
    ctx = Context(workspace)
    assert run(ctx, MeasureSettings(dataset="set")) == {"measured": 6, "near_copies": 2, "groups": 1}
    assert {row[3] for row in ctx.told} == {"scan", "measure"}
    assert run(ctx, MeasureSettings(dataset="set"))["measured"] == 0
    with Library(workspace).open("set") as dataset:
        view = View(dataset.store)
        assert [p.name for p, hit in zip(view.pictures(), matching(view, "dup:yes"), strict=True) if hit] == [
            "copy.jpg",
            "p0.png",
        ]


def test_a_cancelled_measuring_goes_on_later(workspace: Workspace) -> None:
    draw(workspace)
    with pytest.raises(Cancelled):
        run(Context(workspace, cancel_after=3), MeasureSettings(dataset="set"))
    assert run(Context(workspace), MeasureSettings(dataset="set"))["near_copies"] == 2


def test_a_folder_is_looked_through_once_with_captions_and_masks(workspace: Workspace) -> None:
    draw(workspace)
    folder = workspace.datasets / "set"
    (folder / "p1.txt").write_text("a card", encoding="utf-8")
    Image.new("L", (320, 240)).save(folder / "p1-masklabel.png")
    found = look_through(Context(workspace), ScanSettings(dataset="set"))
    assert found == {"dataset": "set", "added": 6, "changed": 0, "gone": 0, "masks": 1, "problems": {}}
    with Library(workspace).open("set") as dataset:
        (masked,) = dataset.store.marks("mask")
        assert [tag.name for tag in View(dataset.store).tags(masked)] == ["a_card"]
    assert look_through(Context(workspace), ScanSettings(dataset="set"))["added"] == 0


def test_looking_through_that_was_stopped_goes_on(workspace: Workspace) -> None:
    draw(workspace)
    with pytest.raises(Cancelled):
        look_through(Context(workspace, cancel_after=1), ScanSettings(dataset="set"))
    assert look_through(Context(workspace), ScanSettings(dataset="set"))["added"] in (0, 6)


def zipped(workspace: Workspace, **names: str) -> UnpackSettings:
    """A zip among the uploads: pictures of one colour by name, each with a caption of it."""
    folder = uploads(workspace)
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "sent.zip", "w") as packed:
        for name, colour in names.items():
            buffer = io.BytesIO()
            Image.new("RGB", (32, 32), colour).save(buffer, "PNG")
            packed.writestr(f"in/{name}.png", buffer.getvalue())
            packed.writestr(f"in/{name}.txt", f"{colour} card")
        packed.writestr("../out.png", b"x")
    (workspace.datasets / "set").mkdir()
    return UnpackSettings(dataset="set", archive="sent.zip", name="mine.zip")


def test_a_zip_that_was_sent_is_taken_in_with_its_captions_and_deleted(workspace: Workspace) -> None:
    settings = zipped(workspace, one="red", two="blue")
    result = unpack(Context(workspace), settings)
    assert result["files"] == 4 and list(result["problems"]) == ["../out.png"]
    with Library(workspace).open("set") as dataset:
        view = View(dataset.store)
        assert [[tag.name for tag in view.tags(p.id)] for p in view.pictures()] == [["red_card"], ["blue_card"]]
    assert list(uploads(workspace).iterdir()) == []
    with pytest.raises(NotFound, match=r"mine\.zip"):
        unpack(Context(workspace), settings)


def test_unpacking_that_was_stopped_goes_on_without_copies(workspace: Workspace) -> None:
    settings = zipped(workspace, one="red", two="blue", three="green")
    with pytest.raises(Cancelled):
        unpack(Context(workspace, cancel_after=4), settings)
    assert 0 < len(list((workspace.datasets / "set").rglob("*.png"))) < 3
    assert unpack(Context(workspace), settings)["files"] == 6
    names = sorted(path.name for path in (workspace.datasets / "set" / "in").iterdir())
    assert names == ["one.png", "one.txt", "three.png", "three.txt", "two.png", "two.txt"]


def test_what_is_no_zip_is_refused_and_not_kept(workspace: Workspace) -> None:
    settings = zipped(workspace, one="red")
    (uploads(workspace) / "sent.zip").write_bytes(b"no zip at all")
    with pytest.raises(NotAZip, match=r"mine\.zip"):
        unpack(Context(workspace), settings)
    assert list(uploads(workspace).iterdir()) == []


def test_of_a_zip_only_its_own_captions_are_read(workspace: Workspace, dataset: Dataset) -> None:
    (dataset.root / "b.txt").write_text("written earlier")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("a.TXT", "from the zip")
    uploads(workspace).mkdir(parents=True)
    (uploads(workspace) / "x.zip").write_bytes(buffer.getvalue())
    unpack(Context(workspace), UnpackSettings(dataset="set", archive="x.zip"))
    view = View(dataset.store)
    assert [[tag.name for tag in view.tags(i)] for i in (1, 2)] == [["from_the_zip"], []]
