"""Prompts with nodes of another name are rewritten before they are judged."""

from __future__ import annotations

from typing import Any

import pytest

from engine.graph.replacement import OWN, Replacement, listed, replaced

KNOWN = {"New", "Sink", "Stays"}
RENAMED = Replacement("New", "Old")
MAPPED = Replacement(
    "New",
    "Older",
    old_widget_ids=("steps",),
    input_mapping=(
        {"new_id": "image", "old_id": "images"},
        {"new_id": "size.width", "old_id": "w"},
        {"new_id": "method", "set_value": "lanczos"},
    ),
    output_mapping=({"new_idx": 1, "old_idx": 0},),
)


def prompt(kind: str, **inputs: Any) -> dict[str, Any]:
    return {
        "1": {"class_type": kind, "inputs": inputs, "_meta": {"title": "mine"}},
        "2": {"class_type": "Sink", "inputs": {"value": ["1", 0], "other": ["3", 0]}},
    }


def test_a_new_name_is_all_that_some_need():
    found = replaced(prompt("Old", a=1, b=["5", 1]), [RENAMED], KNOWN)
    assert found["1"] == {"class_type": "New", "inputs": {"a": 1, "b": ["5", 1]}, "_meta": {"title": "mine"}}
    assert found["2"]["inputs"] == {"value": ["1", 0], "other": ["3", 0]}


def test_inputs_and_outputs_may_have_other_places():
    found = replaced(prompt("Older", images=["7", 0], steps=3), [MAPPED], KNOWN)
    assert found["1"]["inputs"] == {"image": ["7", 0], "method": "lanczos"}
    assert found["2"]["inputs"] == {"value": ["1", 1], "other": ["3", 0]}


def test_what_is_known_stays_and_the_prompt_is_not_copied():
    asked = prompt("Stays")
    assert replaced(asked, [Replacement("New", "Stays")], KNOWN) is asked
    assert replaced(prompt("Old"), [Replacement("Nowhere", "Old")], KNOWN)["1"]["class_type"] == "Old"


def test_of_several_the_first_that_is_known_counts():
    rows = [Replacement("Nowhere", "Old"), Replacement("New", "Old"), Replacement("Stays", "Old")]
    assert replaced(prompt("Old"), rows, KNOWN)["1"]["class_type"] == "New"


def test_the_prompt_that_was_sent_is_not_changed():
    asked = prompt("Older", images=["7", 0])
    before = repr(asked)
    replaced(asked, [MAPPED], KNOWN)
    assert repr(asked) == before


@pytest.mark.parametrize("document", [None, [], {"1": 3}, {"1": {"class_type": ["x"]}}, {"1": {"class_type": "Old"}}])
def test_what_is_no_prompt_is_left_to_be_refused(document: Any):
    found = replaced(document, [RENAMED], KNOWN)
    assert found == document or found == {"1": {"class_type": "New"}}


def test_the_list_for_editors_is_by_the_old_name_and_comes_back():
    rows = listed([RENAMED, MAPPED])
    assert list(rows) == ["Old", "Older"]
    assert rows["Old"][0]["input_mapping"] is None
    assert [Replacement.from_json(row[0]) for row in rows.values()] == [RENAMED, MAPPED]


def test_an_old_misspelling_of_comfyuis_is_known():
    old = {"1": {"class_type": "ConditioningAverage ", "inputs": {}}}
    assert replaced(old, OWN, {"ConditioningAverage"})["1"]["class_type"] == "ConditioningAverage"
