"""Validation: ComfyUI's recorded answers, each error type, many nodes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from engine.graph.catalogue import Catalogue, Entry
from engine.graph.registry import Registry
from engine.graph.validation import Validation, types_fit, validate
from engine.workspace import Workspace
from tests.graph.graph_toys import registry

RECORDED = json.loads((Path(__file__).parent / "data" / "refused_prompts.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def toys() -> Catalogue:
    return Catalogue.of(registry())


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path).create()


def judged(prompt: Any, catalogue: Catalogue, workspace: Workspace, **options: Any) -> Validation:
    return validate(prompt, catalogue, workspace, **options)


def _shown(source: str) -> dict[str, Any]:
    return {"class_type": "Show", "inputs": {"value": [source, 0]}}


def errors_of(found: Validation, node_id: str) -> list[tuple[str, str]]:
    return [(error["type"], error["details"]) for error in found.node_errors[node_id]["errors"]]


@pytest.fixture(scope="module")
def real() -> Catalogue:
    """The nodes that the recorded prompts use."""
    from engine.nodes import image, latent, primitives

    found = Registry()
    for module in (image, latent, primitives):
        found.add_module(module)
    from tests.graph.graph_toys import checkpoint_loader

    found.add(checkpoint_loader)
    return Catalogue.of(found)


@pytest.mark.parametrize("recorded", RECORDED, ids=[row["case"] for row in RECORDED])
def test_answers_are_those_of_the_reference_system(recorded, real, workspace):
    (workspace.models / "checkpoints" / "ref_sd15.safetensors").touch()
    body = recorded["body"]
    found = judged(body["prompt"], real, workspace, targets=body.get("partial_execution_targets"))
    theirs = recorded["response"]
    assert (found.error is None) == (recorded["status"] == 200)
    if recorded["case"] in ("missing class", "no class_type"):  # the type has got a name of its own since
        assert found.error["message"] == theirs["error"]["message"]
        assert found.error["details"] == theirs["error"]["details"]
        assert found.error["type"] == "missing_node_type"
        return
    if recorded["case"] == "cycle":  # the recorded one is an accident of recursion
        assert errors_of(found, "1")[0] == ("dependency_cycle", "1 (ImageInvert) -> 2 (ImageInvert) -> 1 (ImageInvert)")
        return
    if theirs.get("error"):
        assert {**found.error, "details": ""} == {**theirs["error"], "details": ""}
    assert set(found.node_errors) == set(theirs["node_errors"])
    for node_id, expected in theirs["node_errors"].items():
        ours = found.node_errors[node_id]
        assert ours["dependent_outputs"] == expected["dependent_outputs"]
        assert ours["class_type"] == expected["class_type"]
        for mine, other in zip(ours["errors"], expected["errors"], strict=True):
            assert mine["type"] == other["type"]
            assert mine["message"] == other["message"]
            assert set(other["extra_info"]) <= set(mine["extra_info"])
            if mine["type"] == "value_not_in_list":
                assert mine["details"].startswith("ckpt_name: 'none.safetensors' not in [")
                assert "'ref_sd15.safetensors'" in mine["details"]
            else:
                assert mine["details"] == other["details"]
            if "input_config" in other["extra_info"] and mine["type"] != "value_not_in_list":
                assert mine["extra_info"]["input_config"] == other["extra_info"]["input_config"]


def test_values_are_coerced_and_written_back_into_a_copy(toys, workspace):
    inputs = {"steps": "7", "cfg": 3, "text": 5, "on": 1, "mode": "b"}
    prompt = {
        "1": {"class_type": "Typed", "inputs": inputs},
        "2": {"class_type": "Show", "inputs": {"value": ["1", 0]}},
    }
    found = judged(prompt, toys, workspace)
    coerced = found.prompt["1"]["inputs"]
    assert coerced == {"steps": 7, "cfg": 3.0, "text": "5", "on": True, "mode": "b"}
    assert [type(value) for value in coerced.values()] == [int, float, str, bool, str]
    assert inputs["steps"] == "7"
    assert found.outputs == ["2"]


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("steps", 0, "value_smaller_than_min"),
        ("steps", 101, "value_bigger_than_max"),
        ("steps", "many", "invalid_input_type"),
        ("steps", None, "invalid_input_type"),
        ("steps", float("inf"), "invalid_input_type"),
        ("steps", {"a": 1}, "invalid_input_type"),
        ("cfg", float("nan"), "invalid_input_type"),
        ("cfg", 10.5, "value_bigger_than_max"),
        ("mode", "c", "value_not_in_list"),
        ("mode", {"x": []}, "value_not_in_list"),
        ("many", "31", "value_not_in_list"),
        ("image", "a.png", "invalid_input_type"),
        ("steps", ["1"], "bad_linked_input"),
        ("steps", [1, 0], "bad_linked_input"),
        ("steps", ["2", True], "bad_linked_input"),
        ("steps", ["2", 0.5], "bad_linked_input"),
        ("image", ["2", 0], "return_type_mismatch"),
        ("steps", ["9", 0], "exception_during_inner_validation"),
        ("steps", ["2", 1], "exception_during_inner_validation"),
        ("steps", ["2", -1], "exception_during_inner_validation"),
    ],
)
def test_each_wrong_value_has_its_error(name, value, kind, toys, workspace):
    inputs = {"steps": 7, "cfg": 3.0, "text": "", "on": True, "mode": "b", name: value}
    prompt = {
        "1": {"class_type": "Typed", "inputs": inputs},
        "2": {"class_type": "Const", "inputs": {"value": 1}},
        "3": {"class_type": "Show", "inputs": {"value": ["1", 0]}},
    }
    found = judged(prompt, toys, workspace)
    assert found.error["type"] == "prompt_outputs_failed_validation"
    (error,) = found.node_errors["1"]["errors"]
    assert error["type"] == kind
    assert error["extra_info"]["input_name"] == name
    assert found.node_errors["1"]["dependent_outputs"] == ["3"]
    json.dumps(found.to_json())


def test_a_long_list_of_choices_is_not_repeated(toys, workspace):
    inputs = {"steps": 7, "cfg": 3.0, "text": "", "on": True, "mode": "b", "many": "x"}
    prompt = {
        "1": {"class_type": "Typed", "inputs": inputs},
        "3": {"class_type": "Show", "inputs": {"value": ["1", 0]}},
    }
    (error,) = judged(prompt, toys, workspace).node_errors["1"]["errors"]
    assert error["details"] == "many: 'x' not in (list of length 30)"
    assert error["extra_info"]["input_config"] is None


def test_a_bad_output_is_dropped_and_a_good_one_runs(toys, workspace):
    prompt = {
        "1": {"class_type": "Show", "inputs": {"value": 1}},
        "2": {"class_type": "Show", "inputs": {}},
        "3": {"class_type": "Add", "inputs": {"a": 1}},
        "4": {"class_type": "Show", "inputs": {"value": ["3", 0]}},
        "5": {"class_type": "Show", "inputs": {"value": ["3", 0]}},
    }
    found = judged(prompt, toys, workspace)
    assert (found.error, found.outputs) == (None, ["1"])
    assert found.node_errors["3"]["dependent_outputs"] == ["4", "5"]
    assert found.node_errors["2"]["dependent_outputs"] == ["2"]


def test_what_no_output_needs_is_not_judged(toys, workspace):
    prompt = {
        "1": {"class_type": "Show", "inputs": {"value": 1}},
        "2": {"class_type": "Add", "inputs": {"a": "x"}},
    }
    assert judged(prompt, toys, workspace).node_errors == {}


def test_targets_narrow_the_outputs(toys, workspace):
    prompt = {name: {"class_type": "Show", "inputs": {"value": 1}} for name in ("1", "2")}
    assert judged(prompt, toys, workspace, targets=["2"]).outputs == ["2"]
    assert judged(prompt, toys, workspace, targets=["9"]).error["type"] == "prompt_no_outputs"


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ([], "invalid_prompt"),
        ("x", "invalid_prompt"),
        ({"1": 5}, "invalid_prompt"),
        ({"1": {"class_type": "Show", "inputs": []}}, "invalid_prompt"),
        ({"1": {"class_type": ["Show"]}}, "missing_node_type"),
        ({"1": {"class_type": "Secret", "inputs": {}}}, "missing_node_type"),
        ({"1": {"class_type": "Show", "inputs": {"value": 1}}, "2": {"class_type": "Nope"}}, "missing_node_type"),
        ({}, "prompt_no_outputs"),
    ],
)
def test_a_malformed_prompt_is_refused_as_a_whole(prompt, kind, toys, workspace):
    found = judged(prompt, toys, workspace)
    assert found.error["type"] == kind
    json.dumps(found.to_json())


def test_a_node_without_inputs_is_fine(toys, workspace):
    assert judged({"1": {"class_type": "Show"}}, toys, workspace).node_errors["1"]["errors"][0]["details"] == "value"


def test_a_wrapped_list_stays_wrapped_and_other_wrapped_values_do_not(toys, workspace):
    found = judged({"1": {"class_type": "Show", "inputs": {"value": {"__value__": ["a", 0]}}}}, toys, workspace)
    assert found.error is None
    assert found.prompt["1"]["inputs"] == {"value": {"__value__": ["a", 0]}}
    found = judged({"1": {"class_type": "Show", "inputs": {"value": {"__value__": 5}}}}, toys, workspace)
    assert found.prompt["1"]["inputs"] == {"value": 5}


def test_files_are_judged_by_whether_they_are_there(toys, workspace):
    (workspace.input / "画 1.png").touch()
    (workspace.output / "sub").mkdir()
    (workspace.output / "sub" / "b.png").touch()
    (workspace.models / "checkpoints" / "m.safetensors").touch()

    def problem(name: str) -> str:
        prompt = {
            "1": {"class_type": "Files", "inputs": {"image": name, "model": "m.safetensors"}},
            "2": {"class_type": "Show", "inputs": {"value": ["1", 0]}},
        }
        found = judged(prompt, toys, workspace)
        return errors_of(found, "1")[0][1] if found.error else ""

    assert problem("画 1.png") == ""
    assert problem("sub/b.png [output]") == ""
    assert problem("../studio.db") == "image - Invalid image file: ../studio.db"
    assert problem("/etc/passwd") == "image - Invalid image file: /etc/passwd"
    assert problem("none.png") == "image - Invalid image file: none.png"
    assert problem("a\0.png") == "image - Invalid image file: a\0.png"


def test_own_checks_are_asked_once_for_all_nodes(toys, workspace):
    prompt = {
        "1": {"class_type": "Even", "inputs": {"value": 3}},
        "2": {"class_type": "Even", "inputs": {"value": 40}},
        "3": {"class_type": "Show", "inputs": {"value": ["1", 0]}},
        "4": {"class_type": "Show", "inputs": {"value": ["2", 0]}},
    }
    asked = []

    def ask(checks):
        asked.append(checks)
        return [{"value": True if check.inputs["value"] % 2 == 0 else "must be even"} for check in checks]

    found = judged(prompt, toys, workspace, ask=ask)
    assert len(asked) == 1
    assert [(c.node_id, c.class_type, c.inputs) for c in asked[0]] == [
        ("1", "Even", {"value": 3}),
        ("2", "Even", {"value": 40}),  # out of range, but its own check is what counts
    ]
    assert errors_of(found, "1") == [("custom_validation_failed", "value - must be even")]
    assert found.outputs == ["4"]


def test_cycles_are_named_and_what_hangs_on_them_is_dropped(toys, workspace):
    prompt = {
        "1": {"class_type": "Noop", "inputs": {"value": ["2", 0]}},
        "2": {"class_type": "Noop", "inputs": {"value": ["3", 0]}},
        "3": {"class_type": "Noop", "inputs": {"value": ["1", 0]}},
        "4": {"class_type": "Noop", "inputs": {"value": ["3", 0]}},
        "5": {"class_type": "Show", "inputs": {"value": ["4", 0]}},
        "6": {"class_type": "Show", "inputs": {"value": 1}},
        "7": {"class_type": "Noop", "inputs": {"value": ["7", 0]}},
        "8": {"class_type": "Show", "inputs": {"value": ["7", 0]}},
    }
    found = judged(prompt, toys, workspace)
    assert found.outputs == ["6"]
    assert set(found.node_errors) == {"1", "2", "3", "7"}
    assert errors_of(found, "7") == [("dependency_cycle", "7 (Noop) -> 7 (Noop)")]
    assert found.node_errors["1"]["dependent_outputs"] == ["5"]
    assert found.node_errors["1"]["errors"][0]["extra_info"]["cycle_nodes"] == ["3", "1", "2", "3"]


@pytest.mark.parametrize(
    ("received", "wanted", "fits"),
    [
        ("INT", "INT", True),
        ("INT", "FLOAT", False),
        ("INT", "INT,FLOAT", True),
        ("INT, STRING", "FLOAT,STRING", True),
        ("*", "IMAGE", True),
        ("IMAGE", "*", True),
        ("COMBO", ["a"], True),
        (["a"], ["a"], True),
        (["a"], ["b"], False),
        ("STRING", ["a"], False),
    ],
)
def test_socket_types_compare_as_sets(received, wanted, fits):
    assert types_fit(received, wanted) is fits


def test_a_chain_of_ten_thousand_nodes_is_judged_without_recursion(toys, workspace):
    prompt = {"0": {"class_type": "Const", "inputs": {"value": 1}}}
    for n in range(1, 10_000):
        prompt[str(n)] = {"class_type": "Noop", "inputs": {"value": [str(n - 1), 0]}}
    prompt["end"] = {"class_type": "Sink", "inputs": {"value": ["9999", 0]}}
    assert judged(prompt, toys, workspace).outputs == ["end"]
    prompt["0"]["inputs"]["value"] = "x"
    found = judged(prompt, toys, workspace)
    assert found.node_errors["0"]["dependent_outputs"] == ["end"]
    prompt["0"] = {"class_type": "Noop", "inputs": {"value": ["9999", 0]}}
    assert judged(prompt, toys, workspace).error["type"] == "prompt_outputs_failed_validation"


@pytest.mark.slow
def test_a_hundred_thousand_bad_nodes_are_judged_in_seconds(toys, workspace):
    chain: dict[str, Any] = {"0": {"class_type": "Noop", "inputs": {"value": ["1", 0]}}}
    for n in range(1, 50_000):
        chain[str(n)] = {"class_type": "Add", "inputs": {"a": [str(n - 1), 0], "b": [f"c{n}", 0]}}
        chain[f"c{n}"] = {"class_type": "Noop", "inputs": {"value": [f"c{n}", 0]}}
    chain["end"] = {"class_type": "Sink", "inputs": {"value": ["49999", 0]}}
    start = time.thread_time()
    found = judged(chain, toys, workspace)
    assert time.thread_time() - start < 20
    assert found.error["type"] == "prompt_outputs_failed_validation"
    assert len(found.node_errors) == 1000


def test_of_several_choices_each_is_judged(workspace):
    inputs = {"required": {"colours": ["COMBO", {"options": ["red", "blue"], "multiselect": True}]}}
    info = {"input": inputs, "input_order": {"required": ["colours"]}, "output": [], "output_node": True}
    catalogue = Catalogue({"Paint": Entry(info)})

    def paint(*colours: str) -> Validation:
        node = {"class_type": "Paint", "inputs": {"colours": {"__value__": list(colours)}}}
        return judged({"1": node}, catalogue, workspace)

    assert not paint("red", "blue").error and not paint().error
    assert errors_of(paint("red", "green"), "1") == [("value_not_in_list", "colours: 'green' not in ['red', 'blue']")]


CONST = {"class_type": "Const", "inputs": {"value": 1}}
TYPED = {"class_type": "Typed", "inputs": {"steps": 7, "cfg": 3.0, "text": "", "on": True, "mode": "b"}}


def typed(**inputs: Any) -> dict[str, Any]:
    return {"1": {**TYPED, "inputs": {**TYPED["inputs"], **inputs}}, "2": CONST, "3": _shown("1")}


EVERY = {  # all that the reference system has, but for those of a request's other fields (tests/studio/test_prompt.py)
    "prompt_no_outputs": {"2": CONST},
    "missing_node_type": {"1": {"class_type": "Nobody", "inputs": {}}, "2": CONST, "3": _shown("2")},
    "prompt_outputs_failed_validation": {"3": {"class_type": "Show", "inputs": {}}},
    "required_input_missing": {"3": {"class_type": "Show", "inputs": {}}},
    "bad_linked_input": typed(steps=["2"]),
    "return_type_mismatch": typed(image=["2", 0]),
    "invalid_input_type": typed(steps="many"),
    "value_smaller_than_min": typed(steps=0),
    "value_bigger_than_max": typed(steps=101),
    "value_not_in_list": typed(mode="c"),
    "custom_validation_failed": {"1": {"class_type": "Even", "inputs": {"value": 1}}, "3": _shown("1")},
    "exception_during_validation": {"3": _shown("9")},
    "exception_during_inner_validation": typed(steps=["9", 0]),
    "dependency_cycle": {"1": {"class_type": "Add", "inputs": {"a": ["1", 0], "b": 1}}, "3": _shown("1")},
}


@pytest.mark.parametrize("kind", EVERY)
def test_each_type_of_error_that_comfyui_has_in_its_shape(kind, toys, workspace):
    def ask(checks: Any) -> list[dict[str, Any]]:
        return [{"value": "it is odd"} for _ in checks]

    answer = judged(EVERY[kind], toys, workspace, ask=ask).to_json()
    errors = [error for node in answer["node_errors"].values() for error in node["errors"]]
    assert kind in {error["type"] for error in (answer["error"], *errors)}
    for error in (answer["error"], *errors):
        assert set(error) == {"type", "message", "details", "extra_info"} and error["message"]
    for node_id, node in answer["node_errors"].items():
        assert set(node) == {"errors", "dependent_outputs", "class_type"}
        assert node["dependent_outputs"] == ["3"] and node["class_type"] == EVERY[kind][node_id]["class_type"]
    json.dumps(answer, allow_nan=False)
