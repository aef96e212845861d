from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from engine.dataset.archives import NotAZip, ZipTooLarge, pack, unpack
from engine.dataset.captions import CaptionRules
from engine.dataset.export import import_sidecars, set_rules
from engine.dataset.library import Dataset, Library
from engine.dataset.view import View
from engine.errors import DiskFull
from engine.workspace import Workspace


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 9), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


def packed(entries: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    file.seek(0)
    return file


def reasons(report) -> dict[str, str]:
    return {name: error["en"].split(": ", 1)[1] for name, error in report.left_out.items()}


def test_pictures_and_captions_come_in_with_their_folders(dataset: Dataset) -> None:
    archive = packed({"one/红 a.png": png(1), "one/红 a.txt": b"red", "b.png": png(2), "b.txt": b"blue"})
    report = unpack(dataset, archive, "x.zip")
    assert report.left_out == {}
    assert report.files == ["one/红 a.png", "one/红 a.txt", "b (2).png", "b (2).txt"]
    view = View(dataset.store)
    import_sidecars(dataset, view)
    assert {
        p.path: [t.name for t in view.tags(p.id)] for p in view.pictures() if p.path.startswith(("one", "b ("))
    } == {
        "b (2).png": ["blue"],
        "one/红 a.png": ["red"],
    }


def test_what_could_do_harm_is_left_out_and_named(dataset: Dataset, tmp_path: Path) -> None:
    archive = packed(
        {
            "../outside.png": png(1),
            "/etc/absolute.png": png(2),
            "C:/windows.png": png(3),
            "a\\..\\..\\back.png": png(4),
            "run.exe": b"MZ",
            ".hidden.png": png(5),
            "good.png": png(6),
        }
    )
    with zipfile.ZipFile(archive, "a") as file:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/passwd")
    archive.seek(0)
    report = unpack(dataset, archive, "x.zip")
    assert report.files == ["good.png"]
    assert reasons(report) == {
        "../outside.png": "its path leaves the folder.",
        "/etc/absolute.png": "its path leaves the folder.",
        "C:/windows.png": "its path leaves the folder.",
        "a\\..\\..\\back.png": "its path leaves the folder.",
        "run.exe": "it is neither a picture nor a caption.",
        ".hidden.png": "it is neither a picture nor a caption.",
        "link.png": "it is a link.",
    }
    assert not (dataset.root.parent / "outside.png").exists()


def test_bombs_are_refused(dataset: Dataset) -> None:
    report = unpack(dataset, packed({"bomb.png": b"\0" * (5 << 20), "ok.png": png(1)}), "x.zip")
    assert report.files == ["ok.png"]
    assert "compressed more than any picture" in reasons(report)["bomb.png"]
    with pytest.raises(ZipTooLarge, match=r"x\.zip"):
        unpack(dataset, packed({"a.png": png(1), "b.png": png(2)}), "x.zip", max_total=100)


def test_entries_of_one_name_are_kept_apart_and_equal_ones_once(dataset: Dataset) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive = packed({"x.png": png(1), "X.PNG": png(2)})
        with zipfile.ZipFile(archive, "a") as file:
            file.writestr("x.png", png(3))
            file.writestr("x.png", png(1))
    archive.seek(0)
    report = unpack(dataset, archive, "x.zip")
    assert report.files == ["x.png", "X (2).PNG", "x (3).png", "x.png"]


def test_a_zip_larger_than_the_disk_is_refused_before_anything_is_written(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(DiskFull, match="are free"):
        unpack(dataset, packed({"one.png": png(1)}), "x.zip")
    assert not (dataset.root / "one.png").exists()


def test_folders_too_deep_for_the_disk_are_named(dataset: Dataset) -> None:
    deep = "/".join(["d" * 120] * 60) + "/a.png"
    report = unpack(dataset, packed({deep: png(1), "ok.png": png(2)}), "x.zip")
    assert report.files == ["ok.png"] and deep in report.left_out


def test_an_entry_larger_than_it_says_is_cut(dataset: Dataset) -> None:
    data = bytearray(packed({"liar.png": png(1) * 50}, zipfile.ZIP_STORED).getvalue())
    central = data.rindex(b"PK\x01\x02")
    data[central + 24 : central + 28] = (10).to_bytes(4, "little")  # its size in the directory
    report = unpack(dataset, io.BytesIO(bytes(data)), "x.zip")
    assert report.files == [] and "liar.png" in report.left_out
    assert not list(dataset.root.glob("liar*"))


@pytest.mark.parametrize("data", [b"", b"no zip", packed({"a.png": png(1)}).getvalue()[:60]])
def test_what_is_no_zip_is_refused(dataset: Dataset, data: bytes) -> None:
    with pytest.raises(NotAZip, match=r"x\.zip"):
        unpack(dataset, io.BytesIO(data), "x.zip")


def test_a_damaged_entry_does_not_stop_the_rest(dataset: Dataset) -> None:
    data = bytearray(packed({"bad.png": png(1), "good.png": png(2)}, zipfile.ZIP_STORED).getvalue())
    data[60] ^= 0xFF
    report = unpack(dataset, io.BytesIO(bytes(data)), "x.zip")
    assert report.files == ["good.png"] and "CRC" in reasons(report)["bad.png"]


def test_a_packed_dataset_comes_back_the_same(workspace: Workspace, dataset: Dataset, tmp_path: Path) -> None:
    dataset.store.decide([(1, "red_hat", 1), (3, "o_o", 1)], "Tags")
    set_rules(dataset, CaptionRules(trigger_word="bbdr"))
    assert pack(dataset, View(dataset.store), tmp_path / "set.zip") == 3
    with zipfile.ZipFile(tmp_path / "set.zip") as file:
        assert file.namelist() == ["a.png", "a.txt", "b.png", "b.txt", "sub/c.jpg", "sub/c.txt"]
        assert file.read("a.txt") == b"bbdr, red hat"
    with Library(workspace).create("again") as again:
        unpack(again, tmp_path / "set.zip", "set.zip")
        assert [p.hash for p in again.store.pictures()] == [p.hash for p in dataset.store.pictures()]
