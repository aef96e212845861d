from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest

from engine.dataset.database import DatasetDamaged, DatasetFromTheFuture
from engine.dataset.library import Dataset, Library
from engine.dataset.pictures import scan
from engine.dataset.records import Policy, Reading
from engine.dataset.store import Store
from engine.dataset.view import View
from engine.workspace import Workspace
from tests.dataset.conftest import picture


def ids(dataset: Dataset) -> dict[str, int]:
    return {p.name: p.id for p in dataset.store.pictures()}


def names(dataset: Dataset, name: str) -> list[str]:
    return [tag.name for tag in View(dataset.store).tags(ids(dataset)[name])]


def test_a_moved_or_renamed_file_keeps_its_annotations(dataset: Dataset) -> None:
    dataset.store.decide([(ids(dataset)["a.png"], "red_hat", 1)], "Add red_hat")
    (dataset.root / "elsewhere").mkdir()
    (dataset.root / "a.png").rename(dataset.root / "elsewhere" / "z.png")
    report = scan(dataset)
    assert (report.moved, report.added, report.gone) == (1, 0, 0)
    assert names(dataset, "z.png") == ["red_hat"]


def test_a_deleted_picture_that_comes_back_under_another_name_is_known(dataset: Dataset) -> None:
    dataset.store.decide([(ids(dataset)["a.png"], "red_hat", 1)], "Add red_hat")
    data = (dataset.root / "a.png").read_bytes()
    (dataset.root / "a.png").unlink()
    assert scan(dataset).gone == 1
    assert "a.png" not in ids(dataset)
    (dataset.root / "back.png").write_bytes(data)
    scan(dataset)
    assert names(dataset, "back.png") == ["red_hat"]


def test_files_with_the_same_content_are_one_picture(dataset: Dataset) -> None:
    (dataset.root / "twin.png").write_bytes((dataset.root / "a.png").read_bytes())
    scan(dataset)
    assert [p.paths for p in dataset.store.pictures()] == [("a.png", "twin.png"), ("b.png",), ("sub/c.jpg",)]


def test_a_changed_file_is_another_picture(dataset: Dataset) -> None:
    before = ids(dataset)["a.png"]
    picture(dataset.root / "a.png", 99, (50, 50))
    assert scan(dataset).changed == 1
    assert ids(dataset)["a.png"] != before


def test_a_second_scan_reads_no_file(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.dataset.pictures._look", lambda *_: pytest.fail("read a file"))
    assert scan(dataset).unchanged == 3


def test_undo_and_redo_survive_a_restart(workspace: Workspace, dataset: Dataset) -> None:
    a = ids(dataset)["a.png"]
    dataset.store.decide([(a, "one", 1)], "Add one")
    dataset.store.decide([(a, "two", 1)], "Add two")
    dataset.store.decide([(a, "one", -1)], "Reject one")
    dataset.close()
    with Library(workspace).open("set") as opened:
        assert names(opened, "a.png") == ["two"]
        event = opened.store.undo()
        assert event is not None and event.title == "Reject one"
        assert names(opened, "a.png") == ["one", "two"]
        opened.store.undo()
    with Library(workspace).open("set") as opened:
        assert names(opened, "a.png") == ["one"]
        opened.store.redo()
        opened.store.redo()
        assert names(opened, "a.png") == ["two"]
        assert opened.store.redo() is None
        assert [(e.title, e.state) for e in opened.store.events()] == [
            ("Reject one", "done"),
            ("Add two", "done"),
            ("Add one", "done"),
        ]


def test_a_new_edit_ends_what_could_be_redone(dataset: Dataset) -> None:
    a = ids(dataset)["a.png"]
    dataset.store.decide([(a, "one", 1)], "Add one")
    dataset.store.undo()
    dataset.store.decide([(a, "two", 1)], "Add two")
    assert dataset.store.redo() is None
    assert names(dataset, "a.png") == ["two"]


def test_an_edit_that_changes_nothing_is_no_event(dataset: Dataset) -> None:
    a = ids(dataset)["a.png"]
    dataset.store.decide([(a, "one", 1)], "Add one")
    assert dataset.store.decide([(a, "one", 1)], "Add one again") is None
    assert len(dataset.store.events()) == 1


def test_an_edit_that_fails_in_the_middle_changes_nothing(dataset: Dataset) -> None:
    with pytest.raises(sqlite3.Error):
        dataset.store.decide([(1, "fine", 1), (1, None, 1)], "Half")  # type: ignore[list-item]
    assert dataset.store.events() == []
    assert dataset.store.find_terms(["fine"]) == {}


def test_what_the_user_says_beats_what_a_tagger_read(dataset: Dataset) -> None:
    a = ids(dataset)["a.png"]
    source = dataset.store.source("tagger:x", "v1", policy=Policy({"general": 0.5}))
    dataset.store.add_readings(source.id, {a: Reading([("cat", "general", 0.9), ("dog", "general", 0.4)])})
    dataset.store.decide([(a, "cat", -1), (a, "dog", 1)], "Correct")
    assert names(dataset, "a.png") == ["dog"]


def test_every_tag_says_who_read_it_with_what_score(dataset: Dataset) -> None:
    a = ids(dataset)["a.png"]
    for tool, score in (("tagger:x", 0.9), ("tagger:y", 0.3)):
        source = dataset.store.source(tool, "v1", policy=Policy({"general": 0.5}))
        dataset.store.add_readings(source.id, {a: Reading([("cat", "general", score)])})
    (cat,) = View(dataset.store).annotations(a)
    assert [(o.tool, round(o.score, 3), o.counts) for o in cat.opinions] == [
        ("tagger:x", 0.9, True),
        ("tagger:y", 0.3, False),
    ]
    assert cat.present and cat.decision == 0


def test_a_moved_threshold_counts_at_once_and_can_be_undone(dataset: Dataset) -> None:
    a = ids(dataset)["a.png"]
    source = dataset.store.source("tagger:x", "v1", policy=Policy({"general": 0.5}))
    dataset.store.add_readings(source.id, {a: Reading([("cat", "general", 0.9), ("dog", "general", 0.4)])})
    view = View(dataset.store)
    assert [t.name for t in view.tags(a)] == ["cat"]
    dataset.store.set_policy(source.id, Policy({"general": 0.3}), "Threshold 0.3")
    assert [t.name for t in view.tags(a)] == ["cat", "dog"]
    dataset.store.set_policy(source.id, Policy({"general": 0.3}, per_tag={"cat": 0.95}), "cat 0.95")
    assert [t.name for t in view.tags(a)] == ["dog"]
    dataset.store.undo()
    dataset.store.undo()
    assert [t.name for t in view.tags(a)] == ["cat"]


def test_captions_have_versions_with_their_writer_and_one_can_be_restored(dataset: Dataset) -> None:
    a = ids(dataset)["a.png"]
    dataset.store.write_captions({a: "a grey card"}, "Caption by x", tool="captioner:x")
    dataset.store.write_captions({a: "a dark grey card"}, "Edit caption")
    newest, oldest = dataset.store.caption_versions(a)
    assert [(v.tool, v.text, v.current) for v in (newest, oldest)] == [
        ("user", "a dark grey card", True),
        ("captioner:x", "a grey card", False),
    ]
    dataset.store.restore_caption(oldest, "Restore")
    assert dataset.store.current_caption(a) == dataset.store.caption_versions(a)[1]
    dataset.store.undo()
    dataset.store.undo()
    dataset.store.undo()
    assert dataset.store.current_caption(a) is None


def test_all_captions_go_back_to_a_moment_in_one_edit(dataset: Dataset) -> None:

    dataset.store.write_captions({1: "one", 2: "two"}, "First")
    moment = time.time()
    dataset.store.write_captions({1: "one, worse", 3: "three"}, "Later")
    dataset.store.restore_captions(moment, "Back")
    assert View(dataset.store).captions() == ["one", "two", ""]
    dataset.store.undo()
    assert View(dataset.store).captions() == ["one, worse", "two", "three"]


def test_only_captions_that_counted_at_a_moment_come_back(dataset: Dataset) -> None:
    dataset.store.write_captions({1: "mine"}, "First")
    with dataset.store.writing():  # by a captioner whose captions are compared with, and were never taken
        dataset.store.add_caption(1, dataset.store.source("captioner:x").id, "another")
    moment = time.time()
    dataset.store.write_captions({1: "later", 2: "new"}, "Later")
    dataset.store.restore_captions(moment, "Back")
    assert View(dataset.store).captions() == ["mine", "", ""]


def test_a_removed_picture_leaves_the_dataset_but_not_the_disk(dataset: Dataset) -> None:
    dataset.store.remove_pictures([ids(dataset)["a.png"]], "Remove a.png")
    assert "a.png" not in ids(dataset)
    assert (dataset.root / "a.png").is_file()
    scan(dataset)
    assert "a.png" not in ids(dataset)
    dataset.store.undo()
    assert "a.png" in ids(dataset)


def test_two_open_stores_see_each_others_edits(workspace: Workspace, dataset: Dataset) -> None:
    view = View(dataset.store)
    a = ids(dataset)["a.png"]
    assert view.tags(a) == []
    with Library(workspace).open("set") as other:
        other.store.decide([(a, "cat", 1)], "Add cat")
    assert [tag.name for tag in view.tags(a)] == ["cat"]
    assert view.mask("cat").tolist() == [True, False, False]


def test_a_category_that_a_tagger_knows_replaces_the_guess(dataset: Dataset) -> None:
    dataset.store.decide([(1, "miku", 1)], "Add miku")
    dataset.store.term_ids({"miku": "character"})
    dataset.store.term_ids({"miku": "general"})
    assert View(dataset.store).category("miku") == "character"


def test_a_damaged_file_or_one_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(DatasetDamaged):
        Store(tmp_path / "bad.db")
    with sqlite3.connect(tmp_path / "new.db") as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(DatasetFromTheFuture, match="99"):
        Store(tmp_path / "new.db")


def test_scores_are_kept_as_they_were_read(dataset: Dataset) -> None:
    source = dataset.store.source("tagger:x")
    dataset.store.add_readings(source.id, {1: Reading([("cat", "general", 0.123456)], {"general": 0.5})})
    terms, scores, _ = dataset.store.readings_of(1)[source.id]
    assert scores[0] == np.float32(0.123456)
    assert dataset.store.find_terms(["cat"]) == {"cat": int(terms[0])}


def test_a_dataset_of_the_first_format_gets_the_tables_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "dataset.db"
    with Store(path) as store:
        store.rows("DROP TABLE marks")
        store.rows("DROP TABLE votes")
        store.rows("DROP TABLE regions")
        policy = '{"thresholds": {"general": 0.5}, "per_tag": {}, "mcut": [], "enabled": true, "weight": 1.0}'
        store.rows("INSERT INTO sources VALUES (1, 'tagger:x', '', '', '{}', ?, 0, 1)", policy)
        store.rows("PRAGMA user_version=1")
    with Store(path) as store:
        assert store.marks("mask") == {}
        assert store.votes() == {}
        assert store.sources()[0].policy == Policy({"general": 0.5})


def test_the_log_can_be_gone_back_and_forth_to_any_edit(dataset: Dataset) -> None:
    a = ids(dataset)["a.png"]
    for name in ("one", "two", "three"):
        dataset.store.decide([(a, name, 1)], f"+ {name}")
    dataset.store.travel(1)
    assert names(dataset, "a.png") == ["one"]
    dataset.store.travel(3)
    assert names(dataset, "a.png") == ["one", "two", "three"]
    dataset.store.travel(0)
    assert names(dataset, "a.png") == []
    dataset.store.travel(2)
    assert names(dataset, "a.png") == ["one", "two"]
    assert [event.state for event in dataset.store.events()] == ["undone", "done", "done"]
    assert dataset.store.travel(2) is None
