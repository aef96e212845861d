from __future__ import annotations

import time

import pytest

from engine.dataset.bulk import BadEdit, BulkEdit, PlanOutdated, apply, plan, retag, write
from engine.dataset.library import Dataset
from engine.dataset.records import Reading
from engine.dataset.view import View


@pytest.fixture
def view(dataset: Dataset) -> View:
    source = dataset.store.source("tagger:x")
    tags = {1: ["long_hair", "red_hat", "cat"], 2: ["long_hair"], 3: ["blue_hat", "o_o"]}
    dataset.store.add_readings(
        source.id, {i: Reading([(t, "general", 0.9) for t in names]) for i, names in tags.items()}
    )
    dataset.store.write_captions({1: "A cat. A cat!", 2: "A dog."}, "Captions")
    return View(dataset.store)


def tags(view: View) -> list[list[str]]:
    return [[tag.name for tag in view.tags(p.id)] for p in view.pictures()]


def edited(view: View, **edit: object) -> list[list[str]]:
    apply(view, BulkEdit.model_validate(edit), view.pictures())
    return tags(view)


def test_add(view: View) -> None:
    assert edited(view, how="add", tags=["cat", "new tag"]) == [
        ["long_hair", "red_hat", "cat", "new_tag"],
        ["long_hair", "cat", "new_tag"],
        ["blue_hat", "o_o", "cat", "new_tag"],
    ]


def test_remove_with_a_pattern(view: View) -> None:
    assert edited(view, how="remove", tags=["*_hat", "o_o"]) == [["long_hair", "cat"], ["long_hair"], []]


def test_replace_merges_into_one_tag(view: View) -> None:
    assert edited(view, how="replace", find="* hat", tags=["hat"]) == [
        ["long_hair", "cat", "hat"],
        ["long_hair"],
        ["o_o", "hat"],
    ]


def test_regex_sees_tags_as_they_are_shown(view: View) -> None:
    assert edited(view, how="regex", find=r"^(\w+) hat$", replace=r"hat, \1")[0] == ["long_hair", "cat", "hat,_red"]
    assert edited(view, how="regex", find="^o_o$", replace="")[2] == ["hat,_blue"]


def test_find_and_regex_in_captions(view: View) -> None:
    edit = BulkEdit(how="find in captions", find="A cat", replace=r"\1 B")
    apply(view, edit, view.pictures())
    assert view.captions() == [r"\1 B. \1 B!", "A dog.", ""]
    apply(view, BulkEdit(how="regex in captions", find="DOG", replace="wolf", ignore_case=True), view.pictures())
    assert view.captions()[1] == "A wolf."


def test_a_plan_shows_every_change_and_writes_nothing(view: View) -> None:
    made = plan(view, BulkEdit(how="replace", find="red_hat", tags=("cat", "cap")), view.pictures())
    assert [(c.name, c.added, c.removed) for c in made.changes] == [("a.png", ("cap",), ("red_hat",))]
    assert tags(view)[0] == ["long_hair", "red_hat", "cat"]


def test_what_is_applied_is_what_was_shown(view: View) -> None:
    edit = BulkEdit(how="add", tags=("cat",))
    shown = plan(view, edit, view.pictures())
    view.store.decide([(2, "cat", 1)], "Meanwhile")
    with pytest.raises(PlanOutdated, match="1 pictures"):
        apply(view, edit, view.pictures(), shown.digest)
    assert apply(view, edit, view.pictures(), plan(view, edit, view.pictures()).digest) is not None


def test_a_bulk_edit_is_one_undo(view: View) -> None:
    before = tags(view)
    edited(view, how="add", tags=["x", "y"])
    edited(view, how="remove", tags=["long_hair"])
    view.store.undo()
    view.store.undo()
    assert tags(view) == before
    view.store.redo()
    assert tags(view)[1] == ["long_hair", "x", "y"]


def test_retag_leaves_exactly_what_was_typed(view: View) -> None:
    write(view.store, retag(view, view.pictures()[0], ["cat", " long hair ", "new", "cat"]))
    assert tags(view)[0] == ["long_hair", "cat", "new"]
    assert retag(view, view.pictures()[0], ["new", "cat", "long_hair"]).changes == ()


@pytest.mark.parametrize(
    "edit",
    [
        {"how": "add"},
        {"how": "remove", "tags": [" "]},
        {"how": "replace", "tags": ["x"]},
        {"how": "regex", "find": "("},
        {"how": "regex", "find": "cat", "replace": r"\9"},
        {"how": "regex in captions", "find": "["},
        {"how": "find in captions"},
    ],
)
def test_an_edit_that_means_nothing_is_refused(view: View, edit: dict) -> None:
    with pytest.raises(BadEdit):
        plan(view, BulkEdit.model_validate(edit), view.pictures())


def test_a_pattern_that_would_take_for_ever_holds_up_nothing(view: View) -> None:
    edited(view, how="add", tags=["a" * 60 + "b"])
    start = time.monotonic()
    with pytest.raises(BadEdit, match=r"0\.5 seconds"):
        plan(view, BulkEdit(how="regex", find="(a|aa)+$", replace="x"), view.pictures())
    assert time.monotonic() - start < 5
