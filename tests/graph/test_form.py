"""A workflow's chosen inputs as a form: found, shown, set, and left as the editor would leave them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated, Any

import pytest

from engine.graph.catalogue import Catalogue
from engine.graph.form import BadValue, NoSuchInput, after_run, chosen, described, fields, with_chosen, with_values
from engine.graph.layout import to_workflow
from engine.graph.node import In, InputFiles, NodeContext, Out, node
from engine.graph.registry import Registry
from engine.graph.workflow import to_prompt
from engine.nodes import load_all
from engine.workspace import Workspace


@node("Draw", title="Draw", title_zh="绘制", category="t", outputs=[Out("IMAGE")])
def draw(
    ctx: NodeContext,
    seed: Annotated[int, In("INT", default=0, min=0, max=2**64 - 1, control_after_generate=True)],
    steps: Annotated[int, In("INT", default=20, min=1, max=100)],
    cfg: Annotated[float, In("FLOAT", default=7.0)],
    mode: Annotated[str, In(["soft", "hard"])],
    tiled: Annotated[bool, In("BOOLEAN", default=False)],
) -> tuple[int]:
    return (1,)


@node("Words", title="Words", category="t", outputs=[Out("STRING")], output_node=True)
def words(
    ctx: NodeContext,
    images: Annotated[Any, In("IMAGE")],
    text: Annotated[str, In("STRING", default="", multiline=True)],
    picture: Annotated[str, In(InputFiles((".png",), "picture"), image_upload=True)],
) -> tuple[str]:
    return (text,)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.of(Registry([draw, words]))


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    space = Workspace(tmp_path).create()
    for name in ("a.png", "b.png"):
        (space.input / name).write_bytes(b"x")
    return space


@pytest.fixture
def workflow(catalogue: Catalogue) -> dict[str, Any]:
    drawn = {"seed": 2**63, "steps": 4, "cfg": 1.5, "mode": "hard", "tiled": True}
    prompt = {
        "1": {"class_type": "Draw", "inputs": drawn},
        "2": {"class_type": "Words", "inputs": {"images": ["1", 0], "text": "a fox", "picture": "b.png"}},
    }
    return to_workflow(prompt, catalogue)


CHOSEN = [("2", "text"), ("1", "seed"), ("1", "mode"), ("2", "picture"), ("1", "tiled"), ("1", "cfg")]


def test_chosen_inputs_are_shown_in_their_order_with_kind_value_and_choices(
    workflow: dict[str, Any], catalogue: Catalogue, space: Workspace
) -> None:
    made = with_chosen(workflow, CHOSEN)
    assert chosen(made) == CHOSEN and made["extra"]["linearData"]["inputs"][0] == [2, "text"]
    found = fields(made, catalogue, space)
    assert [(f["key"], f["kind"], f["value"]) for f in found] == [
        ("2.text", "string", "a fox"),
        ("1.seed", "int", str(2**63)),  # more digits than a browser's numbers have
        ("1.mode", "combo", "hard"),
        ("2.picture", "picture", "b.png"),
        ("1.tiled", "boolean", True),
        ("1.cfg", "float", 1.5),
    ]
    assert found[0]["multiline"] is True and found[1]["max"] == str(2**64 - 1)
    assert found[2]["choices"] == ["soft", "hard"] and found[3]["choices"] == ["a.png", "b.png"]
    assert found[1]["title_zh"] == "绘制" and found[1]["title"] == "Draw"


def test_a_form_of_the_official_editor_is_read_and_its_other_fields_stay(
    workflow: dict[str, Any], catalogue: Catalogue, space: Workspace
) -> None:
    theirs = {"inputs": [[2, "text", {"height": 120}], [9, "gone"], [1, "none"], "odd"], "outputs": [2]}
    made = {**workflow, "extra": {"linearData": theirs, "linearMode": True}}
    assert [field["key"] for field in fields(made, catalogue, space)] == ["2.text"]
    again = with_chosen(made, [("1", "steps")])["extra"]
    assert again == {"linearData": {"inputs": [[1, "steps"]], "outputs": [2]}, "linearMode": True}
    for odd in ({}, {"extra": None}, {"extra": {"linearData": 3}}, {"extra": {"linearData": {"inputs": {}}}}):
        assert fields({**workflow, **odd}, catalogue, space) == []


def test_a_form_that_the_editor_has_saved_names_its_widgets_whole(
    workflow: dict[str, Any], catalogue: Catalogue, space: Workspace
) -> None:
    graph = "ce92e0e8-3a6c-5381-bc36-62ab5f5b0d11"
    theirs = {"inputs": [[f"{graph}:2:text", "text", {"height": 120}], [f"{graph}:1:m%6Fde", "mode"]], "outputs": [2]}
    made = {**workflow, "extra": {"linearData": theirs}}
    assert [field["key"] for field in fields(made, catalogue, space)] == ["2.text", "1.mode"]
    again = with_chosen(made, [("1", "steps"), *chosen(made)])["extra"]["linearData"]
    assert again == {"inputs": [[1, "steps"], *theirs["inputs"]], "outputs": [2]}


def test_values_that_are_set_reach_the_prompt_and_nothing_else_changes(
    workflow: dict[str, Any], catalogue: Catalogue, space: Workspace
) -> None:
    values = {"2.text": "a cat", "1.seed": " 18446744073709551615 ", "1.cfg": "2", "1.tiled": False, "1.mode": "soft"}
    prompt = to_prompt(with_values(workflow, values, catalogue, space), catalogue)
    wanted = {"seed": 2**64 - 1, "steps": 4, "cfg": 2.0, "mode": "soft", "tiled": False}
    assert prompt["1"]["inputs"] == wanted and type(prompt["1"]["inputs"]["cfg"]) is float
    assert prompt["2"]["inputs"] == {"images": ["1", 0], "text": "a cat", "picture": "b.png"}
    assert to_prompt(workflow, catalogue)["1"]["inputs"]["seed"] == 2**63


@pytest.mark.parametrize("value", ["many", "", "1.5", "nan", None, []])
def test_a_value_of_a_wrong_type_is_refused_by_name(
    workflow: dict[str, Any], catalogue: Catalogue, space: Workspace, value: Any
) -> None:
    with pytest.raises(BadValue, match="'steps'") as refused:
        with_values(workflow, {"1.steps": value}, catalogue, space)
    assert "不是数字" in refused.value.text("zh")


@pytest.mark.parametrize("key", ["9.steps", "1.nothing", "2.images", "", "1", "."])
def test_an_input_that_is_not_there_is_refused(
    workflow: dict[str, Any], catalogue: Catalogue, space: Workspace, key: str
) -> None:
    with pytest.raises(NoSuchInput):
        with_values(workflow, {key: 1}, catalogue, space)
    with pytest.raises(NoSuchInput):
        with_chosen(workflow, [("9", "steps")])


def test_what_a_choice_brings_can_be_set(space: Workspace) -> None:
    registry = Registry()
    load_all(registry)
    catalogue = Catalogue.of(registry)
    inputs = {"filename_prefix": "x", "format": "exr", "format.bit_depth": "32-bit float"}
    inputs |= {"format.input_color_space": "sRGB"}
    document = to_workflow({"1": {"class_type": "SaveImageAdvanced", "inputs": inputs}}, catalogue)
    rows = fields(with_chosen(document, [("1", "format"), ("1", "format.input_color_space")]), catalogue, space)
    assert [(row["kind"], row["value"], row["choices"]) for row in rows] == [
        ("combo", "exr", ["png", "exr"]),
        ("combo", "sRGB", ["sRGB", "HDR", "linear"]),
    ]
    changed = with_values(document, {"1.format.input_color_space": "HDR"}, catalogue, space)
    assert to_prompt(changed, catalogue)["1"]["inputs"] == {**inputs, "format.input_color_space": "HDR"}


def test_a_value_that_a_link_gives_can_not_be_set(catalogue: Catalogue, space: Workspace) -> None:
    prompt = {
        "1": {
            "class_type": "Draw",
            "inputs": {"seed": ["7", 0], "steps": 4, "cfg": 1.0, "mode": "soft", "tiled": False},
        },
        "7": {"class_type": "Number", "inputs": {}},
    }
    linked = to_workflow(prompt, catalogue)
    assert [[name for name, _ in row["inputs"]] for row in described(linked, catalogue, space)] == [
        ["steps", "cfg", "mode", "tiled"],
        [],
    ]
    with pytest.raises(NoSuchInput):
        with_values(linked, {"1.seed": 1}, catalogue, space)
    assert with_values(linked, {"1.steps": 9}, catalogue, space)["nodes"][0]["widgets_values"][2] == 9


@pytest.mark.parametrize(
    ("control", "after"), [("fixed", {8}), ("increment", {9}), ("decrement", {7}), ("randomize", None)]
)
def test_a_seed_changes_after_a_run_as_the_value_beside_it_says(
    workflow: dict[str, Any], catalogue: Catalogue, space: Workspace, control: str, after: set[int] | None
) -> None:
    made = with_values(workflow, {"1.seed": 8}, catalogue, space)
    made["nodes"][0]["widgets_values"][1] = control
    rng = random.Random(1)
    seeds = {after_run(made, catalogue, space, rng)["nodes"][0]["widgets_values"][0] for _ in range(5)}
    assert seeds == after if after else len(seeds) == 5


def test_an_instance_of_a_subgraph_shows_what_was_promoted(
    workflow: dict[str, Any], catalogue: Catalogue, space: Workspace
) -> None:
    inner = {**workflow["nodes"][0], "id": 5}
    definition = {"id": "sub", "nodes": [inner], "links": [], "inputs": [], "outputs": []}
    instance = {
        "id": 1,
        "type": "sub",
        "title": "My part",
        "properties": {"proxyWidgets": [["5", "steps"], ["5", "mode"], ["8", "gone"]]},
        "widgets_values": [11, "soft", 0],
        "inputs": [],
        "outputs": [],
    }
    made = {"nodes": [instance], "links": [], "definitions": {"subgraphs": [definition]}, "extra": {}}
    made = with_values(with_chosen(made, [("1", "mode"), ("1", "steps")]), {"1.steps": 12}, catalogue, space)
    assert [(f["key"], f["kind"], f["value"]) for f in fields(made, catalogue, space)] == [
        ("1.mode", "combo", "soft"),
        ("1.steps", "int", "12"),
    ]
