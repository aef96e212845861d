"""Inputs that depend on other inputs: judged as they count now, and handed to the node nested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.graph.catalogue import Catalogue
from engine.graph.dynamic import live, nested, specs_of
from engine.graph.validation import Validation, validate
from engine.workspace import Workspace
from tests.graph.graph_toys import IMAGES, MODES, Runner, registry, text


def prompt(kind: str, **inputs: Any) -> dict[str, Any]:
    return {
        "1": {"class_type": "Const", "inputs": {"value": 7}},
        "2": {"class_type": kind, "inputs": {name.replace("__", "."): value for name, value in inputs.items()}},
        "9": {"class_type": "Show", "inputs": {"value": ["2", 0]}},
    }


def judged(document: dict[str, Any]) -> Validation:
    return validate(document, Catalogue.of(registry()), Workspace(Path("/nonexistent")))


def shown(document: dict[str, Any]) -> str:
    found = judged(document)
    assert found.outputs == ["9"], found.to_json()
    runner = Runner()
    outcome = runner.run(found.prompt)
    assert outcome.status == "success", outcome.error
    return text(outcome)["9"]


def errors(document: dict[str, Any]) -> list[tuple[str, str]]:
    found = judged(document).node_errors["2"]["errors"]
    return [(error["type"], error["extra_info"]["input_name"]) for error in found]


def test_a_list_that_grows_comes_as_one_dict_in_the_order_of_its_slots():
    assert shown(prompt("Grow", numbers__n1=["1", 0], numbers__n0=3)) == "{'n0': 3, 'n1': 7}"


def test_its_slots_are_judged_like_inputs():
    assert errors(prompt("Grow", numbers__n1=3)) == [("required_input_missing", "numbers.n0")]
    assert errors(prompt("Grow", numbers__n0=100)) == [("value_bigger_than_max", "numbers.n0")]
    assert judged(prompt("Grow", numbers__n0="5")).prompt["2"]["inputs"] == {"numbers.n0": 5}


def test_a_slot_beyond_the_last_is_no_input():
    assert shown(prompt("Grow", numbers__n0=1, numbers__n4=5)) == "{'n0': 1}"


def test_a_choice_brings_its_own_inputs_and_those_of_others_do_not_count():
    assert shown(prompt("Mode", mode="plus", mode__by=2, mode__more=1, mode__how="word")) == (
        "{'mode': 'plus', 'by': 2, 'more': 1}"
    )
    assert errors(prompt("Mode", mode="plus", mode__by=-1, mode__more=0)) == [("value_smaller_than_min", "mode.by")]
    assert errors(prompt("Mode", mode="plus", mode__by=1)) == [("required_input_missing", "mode.more")]
    assert errors(prompt("Mode", mode="minus")) == [("value_not_in_list", "mode")]


def test_a_choice_that_brings_inputs_is_no_link():
    """They would be left out: which there are is known before anything runs."""
    assert errors(prompt("Mode", mode=["1", 0], mode__by=1)) == [("invalid_dynamic_input", "mode")]
    assert errors(prompt("Mode", mode="say", mode__how=["1", 0])) == [("invalid_dynamic_input", "mode.how")]


def test_choices_lie_inside_one_another():
    inner = prompt("Mode", mode="say", mode__how="word", mode__how__word="hello")
    assert shown(inner) == "{'mode': 'say', 'how': {'how': 'word', 'word': 'hello'}}"


@pytest.mark.parametrize(("by", "ran"), [(1, False), (9, True)])
def test_a_lazy_input_of_a_choice_is_computed_only_when_asked_for(by: int, ran: bool):
    runner = Runner()
    outcome = runner.run(prompt("Mode", mode="plus", mode__by=by, mode__more=["1", 0]))
    assert outcome.status == "success", outcome.error
    assert ("1" in runner.ran()) is ran


def test_a_link_to_a_missing_slot_in_a_list_that_grows_is_an_error():
    assert errors(prompt("Grow", numbers__n0=["1", 3])) == [("exception_during_inner_validation", "numbers.n0")]


def test_names_of_slots_may_be_given_and_a_list_may_be_optional():
    names = {"template": {"input": {"required": {"v": ["FLOAT", {}]}}, "names": ["red", "green"], "min": 1}}
    found = live(specs_of({"required": {"c": ["COMFY_AUTOGROW_V3", names]}}), {})
    assert {name: one.spec.required for name, one in found.items()} == {"c.red": True, "c.green": False}
    found = live(specs_of({"optional": {"c": ["COMFY_AUTOGROW_V3", names]}}), {})
    assert not any(one.spec.required for one in found.values())


def test_a_slot_that_is_connected_brings_more_inputs():
    slot = ["COMFY_DYNAMICSLOT_V3", {"slotType": "IMAGE", "inputs": {"required": {"scale": ["FLOAT", {}]}}}]
    specs = specs_of({"required": {"image": slot}})
    assert list(live(specs, {})) == ["image"]
    given = {"image": ["1", 0], "image.scale": 2.0}
    found = live(specs, given)
    assert list(found) == ["image", "image.scale"] and found["image"].spec.kind == "IMAGE"
    assert nested(specs, found, given) == {"image": {"image": ["1", 0], "scale": 2.0}}


def test_an_empty_list_is_an_empty_dict():
    specs = specs_of({"optional": {"numbers": ["COMFY_AUTOGROW_V3", IMAGES]}, "required": {}})
    assert nested(specs, live(specs, {}), {"other": 1}) == {"numbers": {}, "other": 1}


def test_object_info_shows_the_declaration_as_it_is():
    info = Catalogue.of(registry()).object_info(Workspace(Path("/nonexistent")))
    assert info["Mode"]["input"]["required"]["mode"] == ["COMFY_DYNAMICCOMBO_V3", MODES]
