from __future__ import annotations

from pathlib import Path

import pytest

import engine.workspace
from engine.dataset.captions import CaptionRules
from engine.dataset.export import export_sidecars, import_sidecars, set_rules
from engine.dataset.intake import take_in
from engine.dataset.library import Dataset
from engine.dataset.pictures import scan
from engine.dataset.records import Reading
from engine.dataset.view import View
from engine.errors import DiskFull
from tests.dataset.conftest import picture


@pytest.fixture
def view(dataset: Dataset) -> View:
    """Tags for the three pictures of the fixture."""
    source = dataset.store.source("tagger:x")
    readings = {
        1: Reading([("long_hair", "general", 0.9), ("fate_(series)", "copyright", 0.8), ("o_o", "general", 0.7)]),
        2: Reading([("红色_帽子", "general", 0.9)]),
        3: Reading([]),
    }
    dataset.store.add_readings(source.id, readings)
    set_rules(dataset, CaptionRules(trigger_word="bbdr"))
    return View(dataset.store)


def code(report, name: str) -> str:
    return report.problems[name]["code"]


def test_sidecars_byte_for_byte(dataset: Dataset, view: View) -> None:
    report = export_sidecars(dataset, view)
    assert (report.done, report.unchanged, report.problems) == (3, 0, {})
    assert (dataset.root / "a.txt").read_bytes() == b"bbdr, long hair, o_o, fate (series)"
    assert (dataset.root / "b.txt").read_bytes() == "bbdr, 红色 帽子".encode()
    assert (dataset.root / "sub" / "c.txt").read_bytes() == b"bbdr"
    assert export_sidecars(dataset, view).unchanged == 3


def test_another_suffix_and_only_some_pictures(dataset: Dataset, view: View) -> None:
    export_sidecars(dataset, view, pictures=view.pictures()[:1], suffix=".caption")
    assert (dataset.root / "a.caption").is_file()
    assert not (dataset.root / "b.caption").exists()


def test_a_sidecar_somebody_changed_is_left_alone(dataset: Dataset, view: View) -> None:
    (dataset.root / "a.txt").write_text("my own words")
    report = export_sidecars(dataset, view)
    assert code(report, "a.txt") == "SidecarChanged" and report.done == 2
    assert (dataset.root / "a.txt").read_text() == "my own words"
    export_sidecars(dataset, view, overwrite=True)
    assert (dataset.root / "a.txt").read_text().startswith("bbdr")


def test_a_sidecar_we_wrote_is_written_again(dataset: Dataset, view: View) -> None:
    export_sidecars(dataset, view)
    dataset.store.decide([(1, "hat", 1)], "Add hat")
    assert export_sidecars(dataset, view).done == 1
    assert (dataset.root / "a.txt").read_text() == "bbdr, hat, long hair, o_o, fate (series)"


def test_two_pictures_that_share_a_sidecar_are_listed(dataset: Dataset, view: View) -> None:
    picture(dataset.root / "a.jpg", 77)
    scan(dataset)
    report = export_sidecars(dataset, view)
    assert code(report, "a.txt") == "SharedSidecar"
    assert "a.png" in report.problems["a.txt"]["en"] and "a.jpg" in report.problems["a.txt"]["en"]
    assert report.done == 3


def test_files_with_the_same_content_each_get_their_sidecar(dataset: Dataset, view: View) -> None:
    (dataset.root / "twin.png").write_bytes((dataset.root / "a.png").read_bytes())
    scan(dataset)
    export_sidecars(dataset, view)
    assert (dataset.root / "twin.txt").read_bytes() == (dataset.root / "a.txt").read_bytes()


def test_a_full_disk_leaves_nothing_half_written(dataset: Dataset, view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    export_sidecars(dataset, view)
    before = {path.name: path.read_bytes() for path in dataset.root.iterdir() if path.is_file()}
    dataset.store.decide([(1, "hat", 1)], "Add hat")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(engine.workspace.os, "replace", full)
    with pytest.raises(DiskFull):
        export_sidecars(dataset, view)
    assert {path.name: path.read_bytes() for path in dataset.root.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbflong hair, o_o\r\nfate \\(series\\)\r\n",
        "long hair, o_o\nfate (series)".encode("utf-16"),
        b"long_hair,o_o,fate_(series),long hair",
    ],
)
def test_import_reads_marks_crlf_and_escapes(dataset: Dataset, data: bytes) -> None:
    (dataset.root / "a.txt").write_bytes(data)
    view = View(dataset.store)
    assert import_sidecars(dataset, view).done == 1
    assert [tag.name for tag in view.tags(1)] == ["long_hair", "o_o", "fate_(series)"]


def test_import_as_captions_is_one_edit(dataset: Dataset) -> None:
    (dataset.root / "a.txt").write_text("A cat.\n")
    (dataset.root / "b.caption").write_text("A dog.")
    view = View(dataset.store)
    import_sidecars(dataset, view, read_as="caption")
    assert view.captions() == ["A cat.", "A dog.", ""]
    dataset.store.undo()
    assert view.captions() == ["", "", ""]


def test_what_was_imported_comes_out_again(dataset: Dataset) -> None:
    (dataset.root / "a.txt").write_text("bbdr, zebra, apple, o_o")
    set_rules(dataset, CaptionRules(trigger_word="bbdr", order="as read"))
    view = View(dataset.store)
    import_sidecars(dataset, view)
    report = export_sidecars(dataset, view, pictures=view.pictures()[:1])
    assert (report.unchanged, report.problems) == (1, {})


def test_captions_that_are_too_long_or_no_text_are_listed(dataset: Dataset) -> None:
    (dataset.root / "a.txt").write_bytes(b"x" * ((1 << 20) + 1))
    (dataset.root / "b.txt").write_bytes(b"\xff\x00\x80\x81 binary")
    (dataset.root / "sub" / "c.txt").write_bytes(b"long " * 200_000)
    report = import_sidecars(dataset, View(dataset.store), read_as="caption")
    assert (code(report, "a.txt"), code(report, "b.txt"), report.done) == ("CaptionTooLong", "CaptionNotText", 1)


def test_a_dataset_in_a_folder_elsewhere_gets_its_sidecars_there(workspace, tmp_path: Path) -> None:
    from engine.dataset.library import Library

    picture(tmp_path / "mine" / "x.png")
    with Library(workspace).at(tmp_path / "mine") as dataset:
        scan(dataset)
        set_rules(dataset, CaptionRules(trigger_word="bbdr"))
        export_sidecars(dataset, View(dataset.store))
        assert dataset.external and dataset.name == "mine"
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["x.png", "x.txt"]
    with Library(workspace).at(tmp_path / "mine") as again:
        assert [p.path for p in again.store.pictures()] == ["x.png"]


def test_faces_and_commas_in_tags_survive_files(dataset: Dataset) -> None:
    faces = [":3", ";)", "^_^", "o_o", ">_<", "\\m/", "(o)_(o)"]
    dataset.store.decide([(1, tag, 1) for tag in [*faces, "1,000_cranes"]], "Faces")
    view = View(dataset.store)
    export_sidecars(dataset, view)
    text = (dataset.root / "a.txt").read_text("utf-8")
    assert text == ":3, ;), ^_^, o_o, >_<, \\m/, (o)_(o), 1 000 cranes"
    dataset.store.undo()
    import_sidecars(dataset, view)
    assert [tag.name for tag in view.tags(1)] == [*faces, "1_000_cranes"]


def test_a_trigger_word_of_two_words_is_no_tag(dataset: Dataset) -> None:
    set_rules(dataset, CaptionRules(trigger_word="my word"))
    (dataset.root / "a.txt").write_text("my word, cat")
    import_sidecars(dataset, view := View(dataset.store))
    assert [tag.name for tag in view.tags(1)] == ["cat"]


def test_captions_in_capitals_are_found_and_folders_are_told(dataset: Dataset) -> None:
    (dataset.root / "a.TXT").write_text("cat")
    (dataset.root / "b.txt").mkdir()
    view = View(dataset.store)
    assert import_sidecars(dataset, view).done == 1
    assert [tag.name for tag in view.tags(1)] == ["cat"]
    report = export_sidecars(dataset, view)
    assert report.done == 2 and "folder" in report.problems["b.txt"]["en"]


def test_an_import_is_undone_but_not_what_a_folder_began_with(dataset: Dataset) -> None:
    (dataset.root / "a.txt").write_text("cat")
    take_in(dataset)
    view = View(dataset.store)
    assert dataset.store.events() == [] and [tag.name for tag in view.tags(1)] == ["cat"]
    (dataset.root / "a.txt").write_text("dog")
    import_sidecars(dataset, view)
    assert [tag.name for tag in view.tags(1)] == ["dog"]
    dataset.store.undo()
    assert [tag.name for tag in view.tags(1)] == ["cat"]
