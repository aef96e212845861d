"""Loops: paired and judged before a run, a copy of the body per iteration, nested, kept only when that is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.graph.catalogue import Catalogue
from engine.graph.loops import loops_of
from engine.graph.validation import validate
from engine.nodes import loops
from engine.workspace import Workspace
from tests.graph.graph_toys import Runner, registry, text

COUNT = {"mode": "simple", "mode.num_iterations": 3, "cache_iterations": False}


def runner() -> Runner:
    found = Runner()
    found.executor.registry.add_module(loops)
    return found


def verdict(prompt: dict[str, Any]) -> Any:
    known = registry()
    known.add_module(loops)
    full = {n: {"class_type": kind, "inputs": inputs} for n, node in prompt.items() for kind, inputs in node.items()}
    return validate(full, Catalogue.of(known), Workspace(Path("/nonexistent")))


def kinds(prompt: dict[str, Any]) -> dict[str, list[str]]:
    errors = verdict(prompt).node_errors
    return {node_id: [error["type"] for error in node["errors"]] for node_id, node in errors.items()}


def loop(accumulate: bool = False, carried: bool = True, **start: Any) -> dict[str, Any]:
    """10, and the index of each iteration added to it."""
    end = {"output_value": ["add", 0], "accumulate": accumulate}
    return {
        "ten": {"Const": {"value": 10}},
        "start": {"StartLoop": {**COUNT, "initial_iteration_value": ["ten", 0], **start}},
        "add": {"Add": {"a": ["start", 4 if carried else 0], "b": ["start", 0]}},
        "end": {"EndLoop": {**end, **({"next_iteration_value": ["add", 0]} if carried else {})}},
        "show": {"Show": {"value": ["end", 0]}},
    }


def test_a_value_goes_from_iteration_to_iteration_and_the_body_itself_does_not_run() -> None:
    one = runner()
    outcome = one.run(loop())
    assert outcome.status == "success" and text(outcome) == {"show": "13"}  # 10 + 0 + 1 + 2
    assert [node for node in one.ran() if node.endswith("add")] == [f"end.{n}.add" for n in range(3)]
    shown = {data["node"]: data["display_node"] for data in one.data("executing")}
    assert shown["end.1.add"] == "add" and shown["end.1.start"] == "start"


def test_every_iteration_is_given_when_that_is_asked_for() -> None:
    assert text(runner().run(loop(accumulate=True))) == {"show": "10|11|13"}


def test_ids_are_the_same_every_time_and_iterations_are_kept_only_when_that_is_asked_for() -> None:
    one = runner()
    one.run(loop())
    first = one.ran()
    one.run(loop())
    assert one.ran() == [node for node in first if node != "ten"]  # outside of the loop
    one.run(loop(cache_iterations=True))
    one.run(loop(cache_iterations=True))
    assert not [node for node in one.ran() if "." in node]


@pytest.mark.parametrize(
    ("mode", "indices"),
    [
        ({"mode": "simple", "mode.num_iterations": 1}, "0"),
        ({"mode": "For", "mode.start_iteration_index": -2, "mode.max_iteration": 5, "mode.step": 3}, "-4|2|8"),
        ({"mode": "For", "mode.start_iteration_index": 5, "mode.max_iteration": 5, "mode.step": 1}, None),
    ],
)
def test_iterations_are_counted_as_the_mode_says(mode: dict[str, Any], indices: str | None) -> None:
    prompt = loop(accumulate=True, carried=False)
    prompt["start"] = {"StartLoop": {**mode, "cache_iterations": False}}
    assert text(runner().run(prompt)).get("show") == indices  # index + index


def test_a_list_has_one_iteration_for_each_of_its_items() -> None:
    prompt = {
        "range": {"Range": {"count": 4}},
        "start": {"StartLoop": {"mode": "List", "mode.list": ["range", 0], "cache_iterations": False}},
        "add": {"Add": {"a": ["start", 3], "b": 100}},
        "end": {"EndLoop": {"output_value": ["add", 0], "accumulate": True}},
        "show": {"Show": {"value": ["end", 0]}},
    }
    assert text(runner().run(prompt)) == {"show": "100|101|102|103"}


def nested() -> dict[str, Any]:
    outer = loop()
    del outer["add"]
    outer["end"] = {"EndLoop": {"output_value": ["inner end", 0], "next_iteration_value": ["inner end", 0]}}
    return outer | {
        "inner": {"StartLoop": {**COUNT, "parent_iteration": ["start", 0], "initial_iteration_value": ["start", 4]}},
        "one": {"Add": {"a": ["inner", 4], "b": 1}},
        "inner end": {"EndLoop": {"output_value": ["one", 0], "next_iteration_value": ["one", 0]}},
    }


def test_a_loop_inside_of_a_loop_runs_whole_in_each_iteration_of_the_outer_one() -> None:
    one = runner()
    assert text(one.run(nested())) == {"show": "19"}
    assert len([node for node in one.ran() if node.endswith(".one")]) == 9


def test_outputs_in_a_body_and_terminations_run_each_time() -> None:
    prompt = loop()
    prompt["inside"] = {"Show": {"value": ["start", 0]}}
    prompt["middle"] = {"Middle": {"value": ["start", 0]}}
    prompt["end"]["EndLoop"]["terminations.termination0"] = ["middle", 0]
    one = runner()
    outcome = one.run(prompt)
    assert {node: shown for node, shown in text(outcome).items() if node.endswith("inside")} == {
        f"end.{n}.inside": str(n) for n in range(3)
    }
    assert outcome.meta["end.2.inside"]["display_node"] == "inside"
    assert [f"end.{n}.middle" in outcome.outputs for n in range(3)] == [True] * 3
    assert not [node for node in one.run(prompt, ["show"]).outputs if node.endswith("inside")]  # not asked for


def test_an_error_in_an_iteration_ends_the_run_and_names_its_node() -> None:
    prompt = loop()
    prompt["add"] = {"Fail": {"value": ["start", 4]}}
    outcome = runner().run(prompt)
    assert outcome.status == "error" and "end.0.add (Fail)" in str(outcome.error)


def test_a_good_loop_passes_and_bad_ones_are_refused_before_they_run() -> None:
    assert kinds(loop()) == {} and kinds(nested()) == {}
    no_end = loop()
    no_end["show"] = {"Show": {"value": ["add", 0]}}
    del no_end["end"]
    assert kinds(no_end) == {"start": ["loop_without_end"]}
    no_start = {"end": {"EndLoop": {"output_value": 1}}, "show": {"Show": {"value": ["end", 0]}}}
    assert kinds(no_start) == {"end": ["loop_without_start"]}
    twice = loop() | {"again": {"EndLoop": {"output_value": ["add", 0]}}, "more": {"Show": {"value": ["again", 0]}}}
    assert [some for some in kinds(twice).values()] == [["loop_closed_twice"]]
    escapes = loop() | {"out": {"Add": {"a": ["add", 0], "b": ["end", 0]}}, "more": {"Show": {"value": ["out", 0]}}}
    assert kinds(escapes) == {"out": ["loop_value_escapes"]}
    overlap = nested()
    del overlap["inner"]["StartLoop"]["parent_iteration"], overlap["inner"]["StartLoop"]["initial_iteration_value"]
    overlap["one"] = {"Add": {"a": ["inner", 0], "b": ["start", 0]}}
    assert "loops_overlap" in kinds(overlap)["one"]


def test_errors_of_loops_are_in_the_shape_of_the_others() -> None:
    found = verdict({"end": {"EndLoop": {}}, "show": {"Show": {"value": ["end", 0]}}})
    assert found.error and found.error["type"] == "prompt_outputs_failed_validation"
    assert found.node_errors["end"]["dependent_outputs"] == ["show"]
    (error,) = found.node_errors["end"]["errors"]
    assert set(error) == {"type", "message", "details", "extra_info"} and error["extra_info"] == {"loop_nodes": ["end"]}


def test_a_bad_loop_is_no_hindrance_to_what_does_not_need_it() -> None:
    prompt = loop() | {"again": {"EndLoop": {"output_value": ["add", 0]}}, "free": {"Show": {"value": ["ten", 0]}}}
    assert text(runner().run(prompt, ["free"])) == {"free": "10"}
    assert "has no counterpart" in str(runner().run(prompt, ["show"]).error)


def test_a_prompt_that_is_a_cycle_does_not_hang() -> None:
    prompt = loop()
    prompt["start"]["StartLoop"]["initial_iteration_value"] = ["end", 0]
    assert "dependency_cycle" in kinds(prompt)["start"]
    assert loops_of({"1": {"class_type": "Const", "inputs": {}}}).opened == {}
