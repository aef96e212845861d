"""The official editor and this studio make the same prompts of workflows.

With EASEL_RECORD=1 what the editor says is written to tests/graph/data/editor_prompts.json, which quick tests read.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route

from engine.graph.catalogue import Catalogue, Entry
from engine.graph.layout import to_workflow
from engine.graph.links import is_link
from engine.graph.workflow import to_prompt
from tests.browser.conftest import Studio, until
from tests.graph.editor_graphs import TOYS, random_workflow
from tests.graph.group_graphs import AS_THE_EDITOR

pytestmark = [pytest.mark.browser]
RECORDS = Path(__file__).parents[1] / "graph" / "data" / "editor_prompts.json"
SEEDS = range(1000, 1060)
STARTED = """Boolean(window.LiteGraph?.registered_node_types?.ToyGrow && window.app?.rootGraph?.nodes?.length
  && app.extensionManager?.workflow?.activeWorkflow)"""
HELPERS = """() => {
  window.add = (type, values = {}, graph = app.rootGraph) => {
    const node = LiteGraph.createNode(type);
    graph.add(node);
    for (const [name, value] of Object.entries(values)) {
      const widget = node.widgets.find((one) => one.name === name);
      widget.value = value;
      widget.callback?.(value);
    }
    return node;
  };
  window.link = (from, slot, to, name) => from.connect(slot, to, to.inputs.findIndex((one) => one.name === name));
  window.clean = () => app.loadGraphData({ nodes: [], links: [], groups: [], version: 0.4 }, true, false);
  window.load = async (workflow) => {
    await app.loadGraphData(workflow, true, false);
    return JSON.stringify((await app.graphToPrompt()).output);
  };
  window.taken = async () => {
    const { output, workflow } = await app.graphToPrompt();
    return JSON.stringify({ workflow, prompt: output });
  };
}"""
# How each workflow is built in the editor.
BUILT = {
    "a chain": """const e = add('EmptyImage', { width: 32 }), i = add('ImageInvert'), s = add('SaveImage');
        link(e, 0, i, 'image'); link(i, 0, s, 'images'); s.title = 'My pictures'""",
    "a seed and its control": """add('KSampler', { seed: 5, control_after_generate: 'increment', denoise: 0.5 });
        add('SaveImage')""",
    "a list that grows": """const e = add('EmptyImage'), g = add('ToyGrow', { label: 'hello', after: 9 });
        link(e, 0, g, 'images.image0'); link(e, 0, g, 'images.image1'); link(g, 0, add('PreviewImage'), 'images')""",
    "a list of texts": """const t = add('ToyTexts', { 'texts.text0': 'first', 'texts.text1': 'second', after: 9 });
        link(t, 0, add('PreviewAny'), 'source')""",
    "a choice with values": "add('ToyCombo', { before: 7, 'mode.width': 100, after: 8 })",
    "a choice with a socket": """const e = add('EmptyImage');
        link(e, 0, add('ToyCombo', { before: 7, mode: 'scale', 'mode.by': 1.5, after: 8 }), 'mode.image')""",
    "a choice in a choice": "add('ToyCombo', { before: 7, mode: 'nested', 'mode.inner.seed': 55, after: 8 })",
    "all kinds of widgets": "add('ToyWidgets', { seed: 11, text: 'a {x|x} // c', choice: 'b' })",
    "an upload": """const u = add('ToyUpload', { image: 'b.png', channel: 'red', more: 'zz' });
        link(u, 0, add('PreviewImage'), 'images')""",
    "what a widget starts with": "add('ToyStart')",
    "a primitive": """const p = add('PrimitiveNode'), k = add('KSampler', { seed: 5 }), l = add('EmptyLatentImage');
        link(p, 0, k, 'steps'); p.widgets[0].value = 33; link(l, 0, k, 'latent_image')""",
    "a widget that is linked": """const i = add('PrimitiveInt', { value: 12 }), e = add('EmptyImage');
        link(i, 0, e, 'width'); link(i, 0, e, 'height'); link(e, 0, add('PreviewImage'), 'images')""",
    "a loop": """const st = add('StartLoop', { mode: 'For', 'mode.max_iteration': 6, cache_iterations: true }),
        en = add('EndLoop', { accumulate: true }), s = add('PreviewAny');
        link(st, 0, en, 'output_value'); link(st, 4, en, 'next_iteration_value');
        link(st, 1, en, 'terminations.termination0'); link(st, 2, en, 'terminations.termination1');
        link(en, 0, s, 'source')""",
    "a loop over a list in a loop": """const n = add('PrimitiveInt', { value: 3 }), a = add('StartLoop'),
        b = add('StartLoop', { mode: 'List' }), x = add('EndLoop'), y = add('EndLoop', { accumulate: true });
        link(n, 0, b, 'mode.list'); link(a, 0, b, 'parent_iteration'); link(b, 3, x, 'output_value');
        link(x, 0, y, 'output_value'); link(y, 0, add('PreviewAny'), 'source')""",
    "muted": """const l = add('EmptyLatentImage'), k = add('KSampler'), v = add('VAEDecode');
        link(l, 0, k, 'latent_image'); link(k, 0, v, 'samples'); link(v, 0, add('PreviewImage'), 'images');
        l.mode = 2""",
    "bypassed": """const e = add('EmptyImage'), i = add('ImageInvert'), j = add('ImageScale'), s = add('PreviewImage');
        link(e, 0, i, 'image'); link(i, 0, j, 'image'); link(j, 0, s, 'images'); i.mode = 4; j.mode = 4""",
    "reroutes of both kinds": """const e = add('EmptyImage'), r = add('Reroute'), i = add('ImageInvert'),
        s = add('PreviewImage'); link(e, 0, r, ''); link(r, 0, i, 'image'); const l = link(i, 0, s, 'images');
        app.rootGraph.createReroute([300, 300], l)""",
    "notes and groups": """add('Note'); add('MarkdownNote'); const g = new LiteGraph.LGraphGroup('Group');
        app.rootGraph.add(g); link(add('EmptyImage'), 0, add('PreviewImage'), 'images')""",
    "a subgraph": """const e = add('EmptyImage', { color: 7 }), i = add('ImageInvert'),
        s = add('ImageScale', { width: 64 }), p = add('PreviewImage'); link(e, 0, i, 'image');
        link(i, 0, s, 'image'); link(s, 0, p, 'images');
        app.rootGraph.convertToSubgraph(new Set([i, s]))""",
    "a subgraph with its own values": """const e = add('EmptyImage', { color: 7 }),
        s = add('ImageScale', { width: 64 }), p = add('PreviewImage'); link(e, 0, s, 'image'); link(s, 0, p, 'images');
        const { node } = app.rootGraph.convertToSubgraph(new Set([s])), inner = node.subgraph.nodes[0];
        for (const name of ['width', 'upscale_method']) {
          const rim = node.subgraph.addInput(name, name === 'width' ? 'INT' : 'COMBO');
          rim.connect(inner.inputs.find((one) => one.name === name), inner);
        }
        node.widgets.find((one) => one.name === 'width').value = 99;
        node.widgets.find((one) => one.name === 'upscale_method').value = 'lanczos'""",
    "a text of a subgraph": """const t = add('CLIPTextEncode', { text: 'inside {a|a} // c' }), k = add('KSampler');
        link(t, 0, k, 'positive');
        const { node } = app.rootGraph.convertToSubgraph(new Set([t])), inner = node.subgraph.nodes[0];
        const rim = node.subgraph.addInput('text', 'STRING');
        rim.connect(inner.inputs.find((one) => one.name === 'text'), inner);
        node.widgets.find((one) => one.name === 'text').value = 'outside {b|b} /* c */'""",
    "a value for several inside": """const a = add('EmptyImage', { width: 11 }), b = add('EmptyImage', { width: 22 }),
        p = add('PreviewAny'), q = add('PreviewAny'); link(a, 0, q, 'source');
        const { node } = app.rootGraph.convertToSubgraph(new Set([a, b, p])), inside = node.subgraph.nodes;
        const rim = node.subgraph.addInput('width', 'INT'), to = (place, name) =>
          rim.connect(inside[place].inputs.find((one) => one.name === name), inside[place]);
        to(0, 'width'); to(1, 'width'); to(2, 'source')""",
    "a subgraph in a subgraph": """const e = add('EmptyImage'), i = add('ImageInvert'), j = add('ImageInvert'),
        p = add('PreviewImage'); link(e, 0, i, 'image'); link(i, 0, j, 'image'); link(j, 0, p, 'images');
        const { node } = app.rootGraph.convertToSubgraph(new Set([i]));
        app.rootGraph.convertToSubgraph(new Set([node, j]))""",
}


@pytest.fixture(scope="module")
def editor(chromium: Browser, studio: Studio) -> Iterator[Page]:
    """The editor alone, with the toys among its nodes."""
    page = chromium.new_context(locale="en-US").new_page()
    page.set_default_timeout(60_000)

    def with_toys(route: Route) -> None:
        route.fulfill(json={**route.fetch().json(), **TOYS})

    page.route("**/api/object_info", with_toys)
    page.goto(f"{studio.url}/comfy/")
    until(lambda: page.evaluate(STARTED), 120)  # and has its first graph, which would come over one that is built here
    page.wait_for_timeout(1000)
    page.evaluate(HELPERS)
    yield page
    page.context.close()


@pytest.fixture(scope="module")
def catalogue(studio: Studio) -> Catalogue:
    return Catalogue({name: Entry(info) for name, info in {**studio.get("/object_info"), **TOYS}.items()})


@pytest.fixture(scope="module")
def recorded() -> Iterator[dict[str, Any]]:
    """What is recorded; with EASEL_RECORD=1 an empty table that is written at the end."""
    if not os.environ.get("EASEL_RECORD"):
        yield json.loads(RECORDS.read_text(encoding="utf-8"))
        return
    table: dict[str, Any] = {}
    yield table
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(table[name], separators=(',', ':'))}" for name in table)
    RECORDS.write_text(f"{{\n{rows}\n}}\n", encoding="utf-8")


@pytest.mark.parametrize("name", list(BUILT))
def test_what_is_built_in_the_editor_gives_the_recorded_prompt_in_both_formats(
    editor: Page, recorded: dict[str, Any], catalogue: Catalogue, name: str
) -> None:
    editor.evaluate("clean()")
    taken = json.loads(editor.evaluate(f"async () => {{ {BUILT[name]}; return await taken(); }}"))
    recorded.setdefault(name, taken)
    assert taken["prompt"] == recorded[name]["prompt"]
    newer = json.loads(editor.evaluate("JSON.stringify(app.rootGraph.asSerialisable())"))
    assert newer["version"] == 1 and to_prompt(newer, catalogue) == taken["prompt"]
    assert json.loads(editor.evaluate("(workflow) => load(workflow)", recorded[name]["workflow"])) == taken["prompt"]


def test_workflows_that_are_made_of_prompts_give_these_prompts_in_the_editor(
    editor: Page, recorded: dict[str, Any], catalogue: Catalogue
) -> None:
    for name in BUILT:
        prompt = recorded[name]["prompt"]
        if any(":" in key for key in prompt):
            continue  # of a subgraph: its nodes get other ids
        told = json.loads(editor.evaluate("(workflow) => load(workflow)", to_workflow(prompt, catalogue)))
        assert {key: (node["class_type"], node["inputs"]) for key, node in told.items()} == {
            key: (node["class_type"], node["inputs"]) for key, node in prompt.items()
        }, name


def test_random_graphs_give_the_recorded_prompts(editor: Page, recorded: dict[str, Any]) -> None:
    for seed in SEEDS:
        prompt = json.loads(editor.evaluate("(workflow) => load(workflow)", random_workflow(seed)))
        recorded.setdefault(f"random {seed}", {"seed": seed, "prompt": prompt})
        assert prompt == recorded[f"random {seed}"]["prompt"], seed


@pytest.mark.parametrize("name", list(AS_THE_EDITOR))
def test_group_nodes_of_older_editors_give_the_prompt_that_the_editor_makes_of_them(
    editor: Page, catalogue: Catalogue, name: str
) -> None:
    """It gives the nodes inside other ids, and writes down a button as a value."""
    workflow = copy.deepcopy(AS_THE_EDITOR[name])
    editor.evaluate("clean()")
    theirs = json.loads(editor.evaluate("(workflow) => load(workflow)", workflow))
    for node in theirs.values():
        node["inputs"].pop("upload", None)
    assert _without_ids(theirs) == _without_ids(to_prompt(AS_THE_EDITOR[name], catalogue))


def _without_ids(prompt: dict[str, Any]) -> list[str]:
    """Each node with all that feeds it, as text."""

    def told(value: Any) -> Any:
        return [node(value[0]), value[1]] if is_link(value) else value

    def node(key: str) -> dict[str, Any]:
        inputs = {name: told(value) for name, value in sorted(prompt[key]["inputs"].items())}
        return {"class_type": prompt[key]["class_type"], "inputs": inputs, "_meta": prompt[key]["_meta"]}

    return sorted(json.dumps(node(key)) for key in prompt)


LOOP = """const a = add('PrimitiveString', { value: 'a' }), more = add('StringConcatenate', { string_b: 'b' }),
    st = add('StartLoop', { mode: 'For', 'mode.max_iteration': 3 }), en = add('EndLoop', { accumulate: ALL }),
    show = add('PreviewAny'); link(a, 0, st, 'initial_iteration_value'); link(st, 4, more, 'string_a');
    link(more, 0, en, 'output_value'); link(more, 0, en, 'next_iteration_value'); link(en, 0, show, 'source');"""


def test_a_loop_is_built_and_run_in_the_editor_which_shows_its_nodes_at_work(editor: Page, studio: Studio) -> None:
    """Progress comes by the messages that other clients get as well: the editor announces no flag of ours."""
    editor.evaluate("clean()")
    heard = editor.evaluate_handle(
        """() => {
          const heard = { states: [], executing: [], done: 0 };
          const api = window.comfyAPI.api.api;
          api.addEventListener('progress_state', (event) => heard.states.push(Object.keys(event.detail.nodes).length));
          api.addEventListener('executing', (event) => event.detail && heard.executing.push(String(event.detail)));
          api.addEventListener('execution_success', () => { heard.done += 1; });
          return heard;
        }"""
    )
    for every, shown in (("false", ["abbb"]), ("true", ["ab", "abb", "abbb"])):
        before = set(studio.get("/history"))
        done = heard.json_value()["done"]
        built = LOOP.replace("ALL", every)
        editor.evaluate(f"async () => {{ await clean(); {built}; await app.queuePrompt(0); }}")
        until(lambda done=done: heard.json_value()["done"] > done, 60)
        made = until(lambda before=before: set(studio.get("/history")) - before, 30).pop()
        (output,) = studio.get(f"/history/{made}")[made]["outputs"].values()
        assert output["text"] == shown
    told = heard.json_value()
    assert max(told["states"]) == 12  # of the last run: 3 iterations of 3 nodes, and 3 beside them
    assert told["executing"] and not any(
        node.get("has_errors")
        for node in editor.evaluate("app.rootGraph.nodes.map((n) => ({ has_errors: n.has_errors }))")
    )


def test_a_loop_that_is_not_closed_is_refused_and_the_editor_marks_its_node(editor: Page) -> None:
    editor.evaluate("clean()")
    broken = """const st = add('StartLoop'), show = add('PreviewAny'); link(st, 0, show, 'source');"""
    editor.evaluate(f"async () => {{ {broken} await app.queuePrompt(0); }}")
    errors = until(lambda: editor.evaluate("JSON.stringify(app.lastNodeErrors ?? null)") != "null", 20)
    assert errors
    told = json.loads(editor.evaluate("JSON.stringify(app.lastNodeErrors)"))
    assert [error["type"] for node in told.values() for error in node["errors"]] == ["loop_without_end"]
