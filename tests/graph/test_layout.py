"""Prompts become workflows and prompts again: every recorded one, and odd ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.graph.catalogue import Catalogue, Entry
from engine.graph.layout import to_workflow
from engine.graph.registry import Registry
from engine.graph.validation import unwrapped
from engine.graph.workflow import to_prompt
from engine.nodes import load_all
from engine.workflows import LoraChoice, PictureSettings, text_to_image

HERE = Path(__file__).parent
RECORDED = sorted((HERE.parent / "parity" / "cases").glob("*/api.json"))


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    """The nodes of the reference system, as it described them."""
    told = json.loads((HERE / "data" / "object_info.json").read_text(encoding="utf-8"))
    return Catalogue({name: Entry({**info, "input_order": {}}) for name, info in told.items()})


def given(prompt: dict[str, Any]) -> dict[str, Any]:
    return {key: (item["class_type"], item["inputs"]) for key, item in prompt.items()}


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.parent.name)
def test_a_prompt_is_the_same_after_the_way_through_a_workflow(path: Path, catalogue: Catalogue) -> None:
    prompt = json.loads(path.read_text(encoding="utf-8"))
    known = {key for key, item in prompt.items() if item["class_type"] in catalogue}
    back = to_prompt(to_workflow(prompt, catalogue), catalogue)
    assert set(back) == set(prompt)
    for key in known:
        for name, value in prompt[key]["inputs"].items():
            assert unwrapped(back[key]["inputs"][name]) == unwrapped(value), (key, name)


def test_growing_lists_and_what_a_choice_brings_come_back() -> None:
    registry = Registry()
    load_all(registry)
    chosen = {"format": "png", "format.bit_depth": "16-bit", "format.input_color_space": "sRGB"}
    prompt = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
        "2": {"class_type": "BatchImagesNode", "inputs": {"images.image0": ["1", 0], "images.image2": ["1", 0]}},
        "3": {"class_type": "SaveImageAdvanced", "inputs": {"images": ["2", 0], "filename_prefix": "x", **chosen}},
    }
    catalogue = Catalogue.of(registry)
    assert given(to_prompt(to_workflow(prompt, catalogue), catalogue)) == given(prompt)


def test_ids_that_are_no_numbers_get_one_and_links_follow(catalogue: Catalogue) -> None:
    settings = PictureSettings("a.safetensors", "x", loras=(LoraChoice("l.safetensors", 0.5, 0.25),), seed=2**63)
    prompt = text_to_image(settings)
    workflow = to_workflow(prompt, catalogue)
    assert len({node["id"] for node in workflow["nodes"]}) == len(prompt)
    assert all(isinstance(node["id"], int) for node in workflow["nodes"])
    back = to_prompt(workflow, catalogue)
    lora = next(key for key, item in back.items() if item["class_type"] == "LoraLoader")
    assert back[lora]["inputs"]["strength_clip"] == 0.25
    assert back["5"]["inputs"]["model"] == [lora, 0] and back["5"]["inputs"]["seed"] == 2**63


def test_nodes_stand_right_of_what_they_need_and_never_on_each_other(catalogue: Catalogue) -> None:
    workflow = to_workflow(text_to_image(PictureSettings("a", "x")), catalogue)
    places = {node["id"]: (*node["pos"], *node["size"]) for node in workflow["nodes"]}
    for _, origin, _, target, _, _ in workflow["links"]:
        assert places[origin][0] + places[origin][2] <= places[target][0]
    for one, (x, y, width, height) in places.items():
        for other, (left, top, _, _) in places.items():
            assert one == other or not (x <= left < x + width and y <= top < y + height)


def test_what_is_odd_is_drawn_all_the_same(catalogue: Catalogue) -> None:
    prompt = {
        "a": {"class_type": "Unheard", "inputs": {"x": ["b", 3], "text": "lost", "y": ["gone", 0], "z": ["b", 10**9]}},
        "b": {"class_type": "ImageInvert", "inputs": {"image": ["a", 0]}},
        "12:3": {"class_type": "PreviewImage"},
    }
    workflow = to_workflow(prompt, catalogue)
    assert [node["type"] for node in workflow["nodes"]] == ["Unheard", "ImageInvert", "PreviewImage"]
    assert len(workflow["links"]) == 2
    back = to_prompt(workflow, catalogue)
    assert given(back)[str(workflow["nodes"][1]["id"])][1]["image"] == [str(workflow["nodes"][0]["id"]), 0]


def test_ten_thousand_nodes_in_one_chain_are_laid_out(catalogue: Catalogue) -> None:
    prompt: dict[str, Any] = {"0": {"class_type": "EmptyImage", "inputs": {}}}
    for i in range(1, 10_000):
        prompt[str(i)] = {"class_type": "ImageInvert", "inputs": {"image": [str(i - 1), 0]}}
    assert len(to_workflow(prompt, catalogue)["links"]) == 9_999
