"""Group nodes of older editors become subgraphs with what stood at each of them."""

from __future__ import annotations

import contextlib
import copy
import random
from typing import Any

import pytest

from engine.graph.catalogue import Catalogue
from engine.graph.form import described
from engine.graph.group_nodes import without_group_nodes
from engine.graph.group_shape import TooManyGroups
from engine.graph.registry import Registry
from engine.graph.workflow import NotAWorkflow, UnsupportedWorkflow, to_prompt
from engine.nodes import load_all
from engine.workspace import Workspace
from tests.graph import group_graphs as graphs
from tests.graph.test_editor_prompts import ODD, _places


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    registry = Registry()
    load_all(registry)
    return Catalogue.of(registry)


def inputs(prompt: dict[str, Any]) -> dict[str, Any]:
    return {key: node["inputs"] for key, node in prompt.items()}


def test_its_values_go_to_the_nodes_inside_and_its_inputs_have_the_titles_of_theirs(catalogue: Catalogue) -> None:
    found = inputs(to_prompt(graphs.TWO_ENCODERS, catalogue))
    assert found["5:0"] == {"text": "one", "clip": ["1", 1]}
    assert found["5:1"] == {"text": "two", "clip": ["1", 1]}
    assert found["5:2"] == {
        **{"seed": 77, "steps": 11, "cfg": 3.5, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 0.5},
        **{"model": ["1", 0], "positive": ["5:0", 0], "negative": ["5:1", 0], "latent_image": ["2", 0]},
    }
    assert found["6"]["samples"] == ["5:2", 0]


def test_names_of_its_own_hidden_inputs_primitives_reroutes_and_outputs_used_on_both_sides(
    catalogue: Catalogue,
) -> None:
    found = inputs(to_prompt(graphs.NAMED, catalogue))
    assert found["5:1"] == {
        **{"seed": 5, "steps": 33, "cfg": 4.5, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 0.5},
        **{"model": ["1", 0], "latent_image": ["2", 0]},
    }
    assert found["5:2"] == {
        **{"seed": 6, "steps": 22, "cfg": 7.5, "sampler_name": "lms", "scheduler": "simple", "denoise": 0.25},
        **{"model": ["1", 0], "latent_image": ["5:1", 0]},
    }
    assert (found["6"]["samples"], found["7"]["samples"]) == (["5:1", 0], ["5:2", 0])


def test_each_use_has_its_own_values_and_an_upload_button_takes_a_place(catalogue: Catalogue) -> None:
    found = inputs(to_prompt(graphs.USED_TWICE, catalogue))
    assert [found[key]["image"] for key in ("5:0", "6:0")] == ["b.png", "c.png"]
    scaled = [{name: value for name, value in found[key].items() if name != "image"} for key in ("5:1", "6:1")]
    assert scaled == [
        {"upscale_method": "lanczos", "width": 32, "height": 33, "crop": "center"},
        {"upscale_method": "area", "width": 34, "height": 35, "crop": "disabled"},
    ]
    assert (found["7"]["images"], found["8"]["images"]) == (["5:1", 0], ["6:1", 0])  # what is bypassed inside hands on


@pytest.mark.parametrize("mode", [2, 4])
def test_one_that_is_muted_or_bypassed_does_not_run(mode: int, catalogue: Catalogue) -> None:
    document = copy.deepcopy(graphs.USED_TWICE)
    document["nodes"][0]["mode"] = mode
    assert sorted(to_prompt(document, catalogue)) == ["6:0", "6:1", "7", "8"]


def test_values_that_newer_editors_list_as_inputs_stand_behind_the_others(catalogue: Catalogue) -> None:
    found = inputs(to_prompt(graphs.VALUES_AS_INPUTS, catalogue))
    assert found["5:0"]["steps"] == ["3", 0] and found["5:0"]["seed"] == 5
    assert found["5:1"] == {
        **{"seed": 6, "steps": 22, "cfg": 7.5, "sampler_name": "lms", "scheduler": "simple", "denoise": 0.25},
        "latent_image": ["5:0", 0],
    }


def test_a_group_may_hold_another_one(catalogue: Catalogue) -> None:
    found = inputs(to_prompt(graphs.IN_A_GROUP, catalogue))
    assert found == {
        "5:0": {"width": 16, "height": 17, "batch_size": 1, "color": 5},
        "5:1:0": {"image": ["5:0", 0]},
        "5:1:1": {"image": ["5:1:0", 0], "upscale_method": "bicubic", "scale_by": 4},
        "7": {"images": ["5:1:1", 0]},
    }


def test_a_value_that_was_made_an_input_of_the_group_takes_a_link(catalogue: Catalogue) -> None:
    document = copy.deepcopy(graphs.TWO_ENCODERS)
    item = {"name": "steps", "type": "INT", "link": 9, "widget": {"name": "steps"}}
    document["nodes"][2]["inputs"].append(item)
    document["nodes"].append(graphs.node("PrimitiveInt", [], ["INT"], [9, "fixed"], id=9))
    document["links"].append([9, 9, 0, 5, 4, "INT"])
    assert to_prompt(document, catalogue)["5:2"]["inputs"]["steps"] == ["9", 0]


def test_what_is_opened_shows_its_values_in_the_form(catalogue: Catalogue, tmp_path) -> None:
    found = without_group_nodes(graphs.TWO_ENCODERS, catalogue)
    shown = next(row for row in described(found, catalogue, Workspace(tmp_path)) if row["id"] == "5")
    assert shown["title"] == "Both"
    assert shown["inputs"][:3] == [["text", "one"], ["CLIPTextEncode text", "two"], ["seed", 77]]
    assert inputs(to_prompt(found, catalogue)) == inputs(to_prompt(graphs.TWO_ENCODERS, catalogue))


def test_a_group_with_an_unknown_node_is_kept_and_its_refusal_names_the_node(catalogue: Catalogue) -> None:
    document = copy.deepcopy(graphs.TWO_ENCODERS)
    document["extra"]["groupNodes"]["Both"]["nodes"][0]["type"] = "Nobody"
    assert without_group_nodes(document, catalogue, whole=False) == document
    assert to_prompt(document, catalogue)["5:0"]["class_type"] == "Nobody"


def test_groups_without_end_are_refused(catalogue: Catalogue) -> None:
    document = copy.deepcopy(graphs.IN_A_GROUP)
    document["extra"]["groupNodes"]["Inner"]["nodes"][0] = graphs.node("workflow>Outer")
    with pytest.raises(TooManyGroups):
        to_prompt(document, catalogue)
    groups = {f"G{n}": {"nodes": [graphs.node(f"workflow>G{n + 1}")] * 2, "links": []} for n in range(40)}
    with pytest.raises(TooManyGroups, match="2000"):
        to_prompt(graphs.workflow([graphs.node("workflow>G0", id=1)], [], {**groups, "G40": {"nodes": []}}), catalogue)


def test_a_workflow_without_them_stays_the_same(catalogue: Catalogue) -> None:
    document = {**graphs.TWO_ENCODERS, "nodes": [graphs.CHECKPOINT], "links": []}
    assert without_group_nodes(document, catalogue) == document


@pytest.mark.parametrize("seed", range(4))
def test_anything_anywhere_is_read_or_refused_in_words(seed: int, catalogue: Catalogue) -> None:
    rng = random.Random(seed)
    for _ in range(60):
        document = copy.deepcopy(rng.choice((graphs.NAMED, graphs.VALUES_AS_INPUTS, graphs.IN_A_GROUP)))
        for _ in range(rng.randint(1, 3)):
            holder, key = rng.choice(list(_places(document)))
            holder[key] = copy.deepcopy(rng.choice(ODD))
        with contextlib.suppress(NotAWorkflow, UnsupportedWorkflow, TooManyGroups):
            to_prompt(document, catalogue)
