from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from engine.dataset.library import BadName, Dataset, Library, NameTaken, check_name, free_name, safe_name
from engine.dataset.pictures import add_upload, scan
from engine.errors import NotFound, OutsideWorkspace, PictureError
from engine.workspace import Workspace
from tests.dataset.conftest import picture


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 9), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


def test_a_folder_copied_into_datasets_is_a_dataset(workspace: Workspace) -> None:
    picture(workspace.datasets / "copied" / "a.png")
    library = Library(workspace)
    assert library.names() == ["copied"]
    with library.open("copied") as dataset:
        assert scan(dataset).added == 1
        assert not dataset.external


def test_names_are_checked(workspace: Workspace) -> None:
    library = Library(workspace)
    library.create("红 set").close()
    with pytest.raises(NameTaken):
        library.create("红 SET")
    for bad in ("", "a/b", "..", "a:b", ".hidden", "con", "x" * 300):
        with pytest.raises(BadName):
            library.create(bad)
    assert check_name("  fine name ") == "fine name"


def test_a_dataset_that_is_not_there_names_those_that_are(workspace: Workspace) -> None:
    Library(workspace).create("one").close()
    with pytest.raises(NotFound, match="one"):
        Library(workspace).open("two")
    with pytest.raises(OutsideWorkspace):
        Library(workspace).open("../../etc")


@pytest.mark.parametrize(
    ("given", "safe"),
    [
        ("../../etc/passwd.png", "passwd.png"),
        ("C:\\pictures\\a.png", "a.png"),
        ("con.png", "_con.png"),
        (".hidden.png", "hidden.png"),
        ("a\x00b\n.png", "a_b_.png"),
        ("with space 红🎈.png", "with space 红🎈.png"),
        ("evil\u202egnp.exe", "evil_gnp.exe"),
        ("...", "unnamed"),
    ],
)
def test_names_from_outside_become_safe(given: str, safe: str) -> None:
    assert safe_name(given) == safe


def test_a_long_name_is_cut_before_its_suffix() -> None:
    assert safe_name("红" * 200 + ".png").endswith("红.png")
    assert len(safe_name("红" * 200 + ".png").encode()) <= 180


def test_a_taken_name_gets_a_number() -> None:
    assert free_name("a.png", ["A.png", "a (2).png"]) == "a (3).png"


def test_uploads_never_replace_a_file(dataset: Dataset) -> None:
    before = (dataset.root / "a.png").read_bytes()
    assert add_upload(dataset, "../a.png", png(1)) == "a (2).png"
    assert (dataset.root / "a.png").read_bytes() == before
    assert add_upload(dataset, "other.png", png(1)) == "a (2).png"
    assert scan(dataset).unchanged == 4
    dataset.store.remove_pictures([4], "Remove")
    assert add_upload(dataset, "again.png", png(1)) == "a (2).png"
    assert len(dataset.store.pictures()) == 4
    with pytest.raises(PictureError):
        add_upload(dataset, "x.png", b"no picture")
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda shade: add_upload(dataset, "same.png", png(shade)), range(100, 108)))
    assert len(set(names)) == 8 and len(dataset.store.pictures()) == 12
    with pytest.raises(PictureError):
        add_upload(dataset, "x.exe", png(2))
    assert not (dataset.root / "x.png").exists()
