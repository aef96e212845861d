"""The editor's workflows as prompts: every thing the editor resolves before it sends."""

from __future__ import annotations

import random
import re
import time
from typing import Any

import pytest

from engine.graph.catalogue import Catalogue
from engine.graph.registry import Registry
from engine.graph.validation import validate
from engine.graph.workflow import NotAWorkflow, UnsupportedWorkflow, to_prompt
from engine.nodes import load_all
from engine.workspace import Workspace


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    registry = Registry()
    load_all(registry)
    return Catalogue.of(registry)


def node(id: int, type: str, values: Any = None, mode: int = 0, **more: Any) -> dict[str, Any]:
    inputs = [
        {"name": name, "type": kind, "link": link, **({"widget": {"name": name}} if widget else {})}
        for name, kind, link, widget in more.pop("ins", [])
    ]
    outputs = [{"name": kind, "type": kind} for kind in more.pop("outs", [])]
    return {
        "id": id,
        "type": type,
        "mode": mode,
        "inputs": inputs,
        "outputs": outputs,
        "widgets_values": values,
        **more,
    }


def workflow(nodes: list[Any], links: list[Any], **more: Any) -> dict[str, Any]:
    return {"nodes": nodes, "links": links, "groups": [], "version": 0.4, **more}


def sources(prompt: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {node_id: node["inputs"] for node_id, node in prompt.items()}


LATENT = node(1, "EmptyLatentImage", [512, 256, 2], outs=["LATENT"])
SAMPLER = node(
    2,
    "KSampler",
    [7, "randomize", 20, 6.5, "euler", "normal", 1],
    ins=[("latent_image", "LATENT", 10, False)],
    outs=["LATENT"],
    title="My sampler",
)

MISSING = {"seed": 0, "steps": 20, "cfg": 8.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}


def test_widgets_get_their_names_and_the_seeds_control_is_no_input(catalogue):
    prompt = to_prompt(workflow([SAMPLER, LATENT], [[10, 1, 0, 2, 0, "LATENT"]]), catalogue)
    assert prompt["1"] == {
        "class_type": "EmptyLatentImage",
        "inputs": {"width": 512, "height": 256, "batch_size": 2},
        "_meta": {"title": "Empty Latent Image"},
    }
    assert prompt["2"]["inputs"] == {
        "seed": 7,
        "steps": 20,
        "cfg": 6.5,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1,
        "latent_image": ["1", 0],
    }
    assert prompt["2"]["_meta"] == {"title": "My sampler"}


def test_an_old_file_without_seed_control_and_values_by_name_work(catalogue):
    plain = {**SAMPLER, "widgets_values": [7, 20, 6.5, "euler", "normal", 1]}
    named = {**SAMPLER, "widgets_values": {"seed": 7, "steps": 20, "cfg": 6.5, "videopreview": {}}}
    assert to_prompt(workflow([plain], []), catalogue)["2"]["inputs"]["steps"] == 20
    found = to_prompt(workflow([named], []), catalogue)["2"]["inputs"]
    assert found == {**MISSING, "seed": 7, "steps": 20, "cfg": 6.5}


def test_a_widget_whose_value_was_not_saved_has_what_the_editor_starts_with(catalogue):
    assert to_prompt(workflow([node(2, "KSampler", [7, "fixed", 9])], []), catalogue)["2"]["inputs"] == {
        **MISSING,
        "seed": 7,
        "steps": 9,
    }
    assert to_prompt(workflow([node(2, "CheckpointLoaderSimple")], []), catalogue)["2"]["inputs"] == {}


def test_links_as_objects_are_read(catalogue):
    link = {"id": 10, "origin_id": 1, "origin_slot": 0, "target_id": 2, "target_slot": 0, "type": "LATENT"}
    prompt = to_prompt({**workflow([LATENT, SAMPLER], [link]), "version": 1}, catalogue)
    assert prompt["2"]["inputs"]["latent_image"] == ["1", 0]


def test_reroutes_and_primitives_vanish(catalogue):
    converted = {"name": "steps", "type": "INT", "link": 13, "widget": {"name": "steps"}}
    nodes = [
        LATENT,
        node(3, "Reroute", ins=[("", "*", 11, False)], outs=["LATENT"]),
        node(4, "Reroute", ins=[("", "*", 12, False)], outs=["LATENT"]),
        node(5, "PrimitiveNode", [30, "fixed"], outs=["INT"]),
        node(6, "Note", ["words"]),
        {**SAMPLER, "inputs": [*SAMPLER["inputs"], converted]},
    ]
    links = [[11, 1, 0, 3, 0, "*"], [12, 3, 0, 4, 0, "*"], [10, 4, 0, 2, 0, "LATENT"], [13, 5, 0, 2, 1, "INT"]]
    prompt = to_prompt(workflow(nodes, links), catalogue)
    assert set(prompt) == {"1", "2"}
    assert prompt["2"]["inputs"]["latent_image"] == ["1", 0]
    assert prompt["2"]["inputs"]["steps"] == 30


def test_a_muted_node_is_gone_with_its_links(catalogue):
    prompt = to_prompt(workflow([{**LATENT, "mode": 2}, SAMPLER], [[10, 1, 0, 2, 0, "LATENT"]]), catalogue)
    assert set(prompt) == {"2"}
    assert "latent_image" not in prompt["2"]["inputs"]


def test_a_bypassed_node_hands_on_what_fits(catalogue):
    lora = node(
        3,
        "LoraLoader",
        ["a", 1, 1],
        mode=4,
        ins=[("model", "MODEL", 20, False), ("clip", "CLIP", 21, False)],
        outs=["MODEL", "CLIP"],
    )
    encode = node(4, "CLIPTextEncode", ["words"], ins=[("clip", "CLIP", 22, False)], outs=["CONDITIONING"])
    loader = node(1, "CheckpointLoaderSimple", ["m"], outs=["MODEL", "CLIP", "VAE"])
    links = [[20, 1, 0, 3, 0, "MODEL"], [21, 1, 1, 3, 1, "CLIP"], [22, 3, 1, 4, 0, "CLIP"]]
    prompt = to_prompt(workflow([loader, lora, encode], links), catalogue)
    assert prompt["4"]["inputs"] == {"text": "words", "clip": ["1", 1]}
    nothing = {**encode, "mode": 4, "outputs": [{"name": "X", "type": "CONDITIONING"}]}
    user = node(5, "KSampler", [], ins=[("positive", "CONDITIONING", 23, False)])
    prompt = to_prompt(workflow([loader, nothing, user], [*links, [23, 4, 0, 5, 0, "CONDITIONING"]]), catalogue)
    assert "positive" not in prompt["5"]["inputs"]


def subgraph(**more: Any) -> dict[str, Any]:
    return {
        "id": "sub-1",
        "name": "Two encoders",
        "inputs": [{"name": "clip", "type": "CLIP"}, {"name": "text", "type": "STRING"}],
        "outputs": [{"name": "A", "type": "CONDITIONING"}, {"name": "B", "type": "CONDITIONING"}],
        "nodes": [
            node(
                1,
                "CLIPTextEncode",
                ["inner 1"],
                ins=[("clip", "CLIP", 1, False), ("text", "STRING", 2, True)],
                outs=["CONDITIONING"],
            ),
            node(2, "CLIPTextEncode", ["inner 2"], ins=[("clip", "CLIP", 3, False)], outs=["CONDITIONING"]),
        ],
        "links": [
            {"id": 1, "origin_id": -10, "origin_slot": 0, "target_id": 1, "target_slot": 0, "type": "CLIP"},
            {"id": 2, "origin_id": -10, "origin_slot": 1, "target_id": 1, "target_slot": 1, "type": "STRING"},
            {"id": 3, "origin_id": -10, "origin_slot": 0, "target_id": 2, "target_slot": 0, "type": "CLIP"},
            {"id": 4, "origin_id": 1, "origin_slot": 0, "target_id": -20, "target_slot": 0, "type": "CONDITIONING"},
            {"id": 5, "origin_id": 2, "origin_slot": 0, "target_id": -20, "target_slot": 1, "type": "CONDITIONING"},
        ],
        **more,
    }


def instance(id: int, values: Any = None, text_link: int | None = None, **more: Any) -> dict[str, Any]:
    ins = [("text", "STRING", text_link, True), ("clip", "CLIP", 20, False)]  # not in the definition's order
    return node(id, "sub-1", values, ins=ins, outs=["CONDITIONING", "CONDITIONING"], **more)


TWO_ENCODERS = {"subgraphs": [subgraph()]}
LOADER = node(1, "CheckpointLoaderSimple", ["m"], outs=["MODEL", "CLIP", "VAE"])
USER = node(9, "KSampler", [], ins=[("positive", "CONDITIONING", 30, False), ("negative", "CONDITIONING", 31, False)])
OUTER = [[20, 1, 1, 5, 1, "CLIP"], [30, 5, 0, 9, 0, "CONDITIONING"], [31, 5, 1, 9, 1, "CONDITIONING"]]


def test_a_subgraph_is_laid_flat(catalogue):
    document = workflow([LOADER, instance(5), USER], OUTER, definitions=TWO_ENCODERS)
    found = sources(to_prompt(document, catalogue))
    assert found == {
        "1": {"ckpt_name": "m"},
        "5:1": {"text": "inner 1", "clip": ["1", 1]},
        "5:2": {"text": "inner 2", "clip": ["1", 1]},
        "9": {**MISSING, "positive": ["5:1", 0], "negative": ["5:2", 0]},
    }


def test_values_promoted_to_the_instance_count(catalogue):
    own = workflow([LOADER, instance(5, ["outer"]), USER], OUTER, definitions=TWO_ENCODERS)
    assert sources(to_prompt(own, catalogue))["5:1"]["text"] == "outer"
    proxies = {"proxyWidgets": [["2", "text"], ["-1", "text"]]}
    proxied = instance(5, ["for 2", "for 1"], properties=proxies)
    found = sources(to_prompt(workflow([LOADER, proxied, USER], OUTER, definitions=TWO_ENCODERS), catalogue))
    assert (found["5:1"]["text"], found["5:2"]["text"]) == ("for 1", "for 2")
    unfit = instance(5, [], properties=proxies)
    found = sources(to_prompt(workflow([LOADER, unfit, USER], OUTER, definitions=TWO_ENCODERS), catalogue))
    assert (found["5:1"]["text"], found["5:2"]["text"]) == ("inner 1", "inner 2")


def test_a_link_into_a_promoted_widget_counts_more(catalogue):
    words = node(7, "PrimitiveString", ["linked"], outs=["STRING"])
    links = [*OUTER, [40, 7, 0, 5, 0, "STRING"]]
    document = workflow([LOADER, words, instance(5, text_link=40), USER], links, definitions=TWO_ENCODERS)
    assert sources(to_prompt(document, catalogue))["5:1"]["text"] == ["7", 0]


def test_subgraphs_lie_inside_one_another(catalogue):
    inner = instance(5)
    outer = {
        "id": "sub-2",
        "inputs": [{"name": "clip", "type": "CLIP"}],
        "outputs": [{"name": "A", "type": "CONDITIONING"}],
        "nodes": [inner],
        "links": [[20, -10, 0, 5, 1, "CLIP"], [21, 5, 1, -20, 0, "CONDITIONING"]],
    }
    whole = node(3, "sub-2", [], ins=[("clip", "CLIP", 50, False)], outs=["CONDITIONING"])
    user = node(9, "KSampler", [], ins=[("positive", "CONDITIONING", 51, False)])
    links = [[50, 1, 1, 3, 0, "CLIP"], [51, 3, 0, 9, 0, "CONDITIONING"]]
    document = workflow([LOADER, whole, user], links, definitions={"subgraphs": [subgraph(), outer]})
    found = sources(to_prompt(document, catalogue))
    assert found["9"]["positive"] == ["3:5:2", 0]
    assert found["3:5:2"]["clip"] == ["1", 1]


def test_a_subgraph_of_thousands_of_nodes_is_laid_flat_in_a_moment(catalogue):
    ids = range(1, 5001)
    inner = [node(n, "CLIPTextEncode", ["x"], ins=[("clip", "CLIP", n, False)], outs=["CONDITIONING"]) for n in ids]
    links = [[n, -10, 0, n, 0, "CLIP"] for n in ids]
    many = {"id": "many", "inputs": [{"name": "clip", "type": "CLIP"}], "outputs": [], "nodes": inner, "links": links}
    whole = node(9000, "many", [], ins=[("clip", "CLIP", None, False)])
    begin = time.process_time()
    found = to_prompt(workflow([whole], [], definitions={"subgraphs": [many]}), catalogue)
    assert len(found) == 5000 and time.process_time() - begin < 5


def test_a_bypassed_or_muted_subgraph_has_no_inside(catalogue):
    for mode in (2, 4):
        document = workflow([LOADER, instance(5, mode=mode), USER], OUTER, definitions=TWO_ENCODERS)
        assert set(to_prompt(document, catalogue)) == {"1", "9"}


def test_a_subgraph_that_holds_itself_is_refused(catalogue):
    looped = subgraph()
    looped["nodes"].append(instance(3))
    with pytest.raises(UnsupportedWorkflow, match="50"):
        to_prompt(workflow([instance(5)], [], definitions={"subgraphs": [looped]}), catalogue)


def test_reroutes_in_a_circle_lead_nowhere(catalogue):
    nodes = [
        node(3, "Reroute", ins=[("", "*", 12, False)], outs=["*"]),
        node(4, "Reroute", ins=[("", "*", 11, False)], outs=["*"]),
        SAMPLER,
    ]
    links = [[11, 3, 0, 4, 0, "*"], [12, 4, 0, 3, 0, "*"], [10, 4, 0, 2, 0, "*"]]
    assert "latent_image" not in to_prompt(workflow(nodes, links), catalogue)["2"]["inputs"]


def test_dynamic_prompts_are_chosen_and_comments_go(catalogue):
    words = "a {red|{dark |}blue} fox // why\n/* not\nthis */and \\{braces\\}"
    encode = node(4, "CLIPTextEncode", [words])
    texts = {
        to_prompt(workflow([encode], []), catalogue, random.Random(seed))["4"]["inputs"]["text"] for seed in range(40)
    }
    assert texts == {f"a {c} fox \nand {{braces}}" for c in ("red", "blue", "dark blue")}


def test_what_a_choice_brings_lies_behind_it(catalogue):
    saved = node(3, "SaveImageAdvanced", ["ComfyUI", "exr", "32-bit float", "HDR"])
    chosen = {"format": "exr", "format.bit_depth": "32-bit float", "format.input_color_space": "HDR"}
    assert to_prompt(workflow([saved], []), catalogue)["3"]["inputs"] == {"filename_prefix": "ComfyUI", **chosen}
    by_name = node(3, "SaveImageAdvanced", {"filename_prefix": "x", **chosen, "format.unknown": 1})
    assert to_prompt(workflow([by_name], []), catalogue)["3"]["inputs"] == {"filename_prefix": "x", **chosen}
    unknown = node(3, "SaveImageAdvanced", ["ComfyUI", "webp", "lossy"])
    assert to_prompt(workflow([unknown], []), catalogue)["3"]["inputs"] == {
        "filename_prefix": "ComfyUI",
        "format": "webp",
    }


def test_a_prompt_is_left_as_it_is(catalogue):
    prompt = {"1": {"class_type": "EmptyLatentImage", "inputs": {}}}
    assert to_prompt(prompt, catalogue) is prompt


@pytest.mark.parametrize(
    "document", [{}, [], "x", None, {"nodes": 5}, {"nodes": [5]}, {"nodes": [{"id": 1}]}, {"1": {}}]
)
def test_what_is_no_workflow_is_refused(document, catalogue):
    with pytest.raises(NotAWorkflow) as refused:
        to_prompt(document, catalogue)
    assert re.search("没有节点列表|内容不一致", refused.value.text("zh"))


def test_subgraphs_that_multiply_are_refused_before_they_fill_the_memory(catalogue, monkeypatch):
    monkeypatch.setattr("engine.graph.workflow.MOST_INSIDE", 2000)
    twice = [
        {"id": f"s{n}", "inputs": [], "outputs": [], "links": [], "nodes": [node(1, f"s{n + 1}"), node(2, f"s{n + 1}")]}
        for n in range(40)
    ]
    with pytest.raises(UnsupportedWorkflow, match="2000 nodes") as refused:
        to_prompt(workflow([node(1, "s0")], [], definitions={"subgraphs": twice}), catalogue)
    assert refused.value.text("zh").startswith("该工作流使用了节点总数超过 2000 的子图")


def test_unknown_nodes_are_left_for_validation_to_name(catalogue, tmp_path):
    prompt = to_prompt(workflow([node(1, "Nobody", [1])], []), catalogue)
    found = validate(prompt, catalogue, Workspace(tmp_path))
    assert found.error is not None
    assert found.error["message"] == "Cannot execute because node Nobody does not exist."
