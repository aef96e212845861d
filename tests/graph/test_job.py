"""The generate job: caches between prompts, drafts apart from finals, results and errors as the store keeps them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from engine.errors import Cancelled
from engine.graph.cache import ClassicCache
from engine.graph.draft import STAND_INS
from engine.graph.errors import NodeFailed
from engine.graph.job import Executors, GenerateSettings, GraphOptions, Live, PromptRefused, answer_checks, run
from engine.graph.metadata import read_metadata
from engine.graph.node import NodeContext, Out, node
from engine.graph.registry import Registry
from engine.nodes import load_all
from engine.workspace import Workspace
from tests.graph import graph_toys


@node("Nested", category="toys", outputs=[Out("INT")])
def nested(ctx: NodeContext) -> tuple[int]:
    """Another prompt in the middle of this one, as a picture between two training steps is."""
    inner = ctx.live["run"]({"1": {"class_type": "Show", "inputs": {"value": 1}}})
    assert inner["status"]["completed"]
    return (int(inner["outputs"]["1"]["text"][0]),)


@node("GradMode", category="toys", outputs=[Out("STRING")])
def grad_mode(ctx: NodeContext) -> tuple[str]:
    made = torch.ones(1)
    return (f"grad={torch.is_grad_enabled()} inference={made.is_inference()}",)


@node("NoMemory", category="toys", outputs=[Out("INT")])
def no_memory(ctx: NodeContext) -> tuple[int]:
    raise torch.OutOfMemoryError("Tried to allocate 20.00 GiB")


class JobContext:
    """What the worker gives a job, as far as graphs use it."""

    def __init__(self, workspace: Workspace, registry: Registry) -> None:
        self.job_id = "11111111-1111-1111-1111-111111111111"
        self.workspace = workspace
        self.models: Any = None
        self.kept: dict[type, Any] = {Registry: registry}
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.bars: list[tuple[int, int, str]] = []
        self.previews: list[tuple[tuple[int, int], dict[str, Any]]] = []
        self.cancel_at = -1
        self.secrets: dict[str, str] = {}

    def progress(self, step: int, total: int, text: str = "", *, phase: str = "", **metrics: float) -> None:
        self.bars.append((step, total, text))

    def checkpoint(self, save: Any = None) -> None:
        if 0 <= self.cancel_at <= len(self.events):
            raise Cancelled

    def preview(self, image: Image.Image, **info: Any) -> None:
        self.previews.append((image.size, info))

    def emit(self, event: str, **data: Any) -> None:
        self.events.append((event, data))

    def run(self, prompt: dict[str, Any], **settings: Any) -> dict[str, Any]:
        self.events.clear()
        return run(self, GenerateSettings(prompt=prompt, **settings))  # type: ignore[arg-type]

    def ran(self) -> list[str]:
        return [data["node"] for event, data in self.events if event == "executing"]


@pytest.fixture(scope="module")
def registry() -> Registry:
    found = Registry()
    load_all(found)
    for name in ("Const", "Add", "Show", "Fail", "Steps", "Even"):
        found.add_type(graph_toys.registry()[name])
    found.add(nested)
    found.add(grad_mode)
    found.add(no_memory)
    return found


@pytest.fixture
def ctx(tmp_path: Path, registry: Registry) -> JobContext:
    return JobContext(Workspace(tmp_path).create(), registry)


def nodes(**short: Any) -> dict[str, Any]:
    return {f"{name[1:]}": {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in short.items()}


PAIR = nodes(n1=("Const", {"value": 2}), n2=("Show", {"value": ["1", 0]}))


def test_the_result_is_what_the_history_shows(ctx):
    result = ctx.run(PAIR, outputs=["2"])
    assert result["outputs"] == {"2": {"text": ["2"]}}
    assert result["status"] == {"status_str": "success", "completed": True}
    assert [name for name, _ in result["messages"]] == ["execution_start", "execution_cached", "execution_success"]
    assert result["messages"][0][1]["prompt_id"] == ctx.job_id


def test_results_are_kept_from_prompt_to_prompt(ctx):
    ctx.run(PAIR, outputs=["2"])
    ctx.run(PAIR, outputs=["2"])
    assert ctx.ran() == []
    ctx.kept[Executors].forget()
    ctx.run(PAIR, outputs=["2"])
    assert ctx.ran() == ["1", "2"]


def test_the_cache_strategy_is_the_workers_choice(ctx):
    ctx.kept[GraphOptions] = GraphOptions(cache="none")
    ctx.run(PAIR, outputs=["2"])
    ctx.run(PAIR, outputs=["2"])
    assert ctx.ran() == ["1", "2"]


def test_a_prompt_that_was_not_judged_is_judged_here(ctx):
    assert ctx.run(nodes(n1=("Show", {"value": {"__value__": 5}})))["outputs"] == {"1": {"text": ["5"]}}
    with pytest.raises(PromptRefused, match="Required input is missing: value") as caught:
        ctx.run(nodes(n1=("Show", {})))
    assert caught.value.result["node_errors"]["1"]["errors"][0]["type"] == "required_input_missing"
    with pytest.raises(PromptRefused, match="must be even"):
        ctx.run(nodes(n1=("Even", {"value": 3}), n2=("Show", {"value": ["1", 0]})))


def test_the_workers_handler_answers_own_checks(ctx, registry):
    check = {"node_id": "1", "class_type": "Even", "inputs": {"value": 3}, "input_types": {}}
    good = {**check, "inputs": {"value": 4}}
    linked = {**check, "inputs": {}}
    answers = answer_checks(registry, ctx.workspace, {"checks": [check, good, linked]})
    assert answers == {"answers": [{"value": "must be even"}, {}, {}]}


def test_a_failing_node_fails_the_job_with_what_there_was(ctx):
    prompt = nodes(n1=("Show", {"value": 1}), n2=("Fail", {"value": 2}), n3=("Show", {"value": ["2", 0]}))
    with pytest.raises(NodeFailed, match=r"Node 2 \(Fail\) failed: ValueError: no good: 2") as caught:
        ctx.run(prompt, outputs=["1", "3"])
    assert caught.value.result["outputs"] == {"1": {"text": ["1"]}}
    assert caught.value.result["messages"][-1][0] == "execution_error"
    assert "ValueError" in caught.value.text("zh")


def test_out_of_memory_frees_the_device_and_says_what_to_do(ctx):
    freed = []
    ctx.models = SimpleNamespace(trim=lambda: freed.append(True))
    with pytest.raises(NodeFailed, match=r"Tried to allocate 20\.00 GiB\. Make the picture or the batch smaller"):
        ctx.run(nodes(n1=("NoMemory", {}), n2=("Show", {"value": ["1", 0]})), outputs=["2"])
    assert freed == [True]
    (told,) = [data for event, data in ctx.events if event == "execution_error"]
    assert told["exception_type"] == "torch.OutOfMemoryError" and "Make the picture" in told["exception_message"]


def test_what_is_kept_can_be_looked_into(ctx):
    ctx.run(PAIR, outputs=["2"])
    found = ctx.kept[Executors].dump()
    assert found["finals"]["entries"] == 2 and found["drafts"]["entries"] == 0


def test_an_interrupt_is_passed_on_and_the_next_prompt_runs(ctx):
    ctx.cancel_at = 2
    with pytest.raises(Cancelled):
        ctx.run(PAIR, outputs=["2"])
    assert ctx.events[-1][0] == "execution_interrupted"
    ctx.cancel_at = -1
    assert ctx.run(PAIR, outputs=["2"])["status"]["completed"]


def test_progress_makes_a_bar(ctx):
    ctx.run(nodes(n1=("Steps", {"value": 3}), n2=("Show", {"value": ["1", 0]})), outputs=["2"])
    assert ctx.bars == [(0, 2, "Steps"), (1, 3, "Steps"), (2, 3, "Steps"), (3, 3, "Steps"), (1, 2, "Show")]


def test_nodes_run_without_gradients_and_make_ordinary_tensors(ctx):
    result = ctx.run(nodes(n1=("GradMode", {}), n2=("Show", {"value": ["1", 0]})), outputs=["2"])
    assert result["outputs"]["2"]["text"] == ["grad=False inference=False"]
    assert torch.is_grad_enabled()


def test_a_prompt_may_run_inside_another(ctx):
    inner = JobContext(ctx.workspace, ctx.kept[Registry])
    inner.kept = ctx.kept
    ctx.kept[Live] = Live(run=lambda prompt: inner.run(prompt))
    result = ctx.run(nodes(n1=("Nested", {}), n2=("Show", {"value": ["1", 0]})), outputs=["2"])
    assert result["outputs"]["2"]["text"] == ["1"]


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="draaft"):
        GenerateSettings.model_validate({"prompt": {}, "draaft": True})


SAVED = nodes(
    n1=("EmptyImage", {"width": 64, "height": 48, "batch_size": 2, "color": 0}),
    n2=("SaveImage", {"images": ["1", 0], "filename_prefix": "folder/pic"}),
    n3=("PreviewImage", {"images": ["1", 0]}),
)


def test_pictures_are_saved_with_the_prompt_as_submitted(ctx):
    result = ctx.run(SAVED, extra_data={"extra_pnginfo": {"workflow": {"nodes": [1]}}})
    first, second = result["outputs"]["2"]["images"]
    assert first == {"filename": "pic_00001_.png", "subfolder": "folder", "type": "output"}
    assert second["filename"] == "pic_00002_.png"
    metadata = read_metadata(ctx.workspace.output / "folder" / "pic_00001_.png")
    assert metadata.prompt == SAVED
    assert metadata.workflow == {"nodes": [1]}
    assert not metadata.draft
    shown = result["outputs"]["3"]["images"][0]
    assert shown["type"] == "temp"
    assert (ctx.workspace.temp / shown["filename"]).is_file()


def png_texts(path: Path) -> list[tuple[str, str, str]]:
    """(kind of chunk, keyword, text) as a reader that knows plain text chunks alone takes them."""
    data, found, at = path.read_bytes(), [], 8
    while at < len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8].decode()
        if kind in ("tEXt", "iTXt", "zTXt"):
            keyword, _, text = data[at + 8 : at + 8 + size].partition(b"\0")
            found.append((kind, keyword.decode("latin-1"), text.decode("utf-8")))
        at += size + 12
    return found


def test_a_picture_has_the_chunks_that_loaders_of_workflows_look_for(ctx):
    workflow = {"nodes": [{"title": "狐"}], "links": []}
    prompt = SAVED | nodes(n4=("PreviewAny", {"source": "狐狸 🦊"}))
    result = ctx.run(prompt, extra_data={"extra_pnginfo": {"workflow": workflow}})
    (image, _) = result["outputs"]["2"]["images"]
    texts = png_texts(ctx.workspace.output / image["subfolder"] / image["filename"])
    assert [(kind, keyword) for kind, keyword, _ in texts] == [("tEXt", "prompt"), ("tEXt", "workflow")]
    assert [json.loads(text) for _, _, text in texts] == [prompt, workflow]


def test_a_draft_is_marked_and_lies_in_the_temp_folder(ctx):
    (image, _) = ctx.run(SAVED, draft=True)["outputs"]["2"]["images"]
    assert image["type"] == "temp"
    path = ctx.workspace.temp / image["subfolder"] / image["filename"]
    assert read_metadata(path).draft
    with Image.open(path) as picture:
        assert picture.getpixel((0, 0)) == (255, 0, 255)
    assert list(ctx.workspace.output.rglob("*.png")) == []


def test_a_draft_neither_feeds_nor_pushes_out_a_final(ctx):
    ctx.run(SAVED, draft=True)
    ctx.run(SAVED)
    assert ctx.ran() == ["1", "2", "3"]
    ctx.run(SAVED, draft=True)
    ctx.run(SAVED)
    assert ctx.ran() == []


def test_every_stand_in_is_a_node_that_takes_what_it_needs_from_its_original(registry):
    for name, stand_in in STAND_INS.items():
        assert registry[stand_in].declaration.internal
        if name in registry:
            original = registry[name]
            needed = {i.name for i in registry[stand_in].inputs.values() if not i.optional}
            assert needed <= set(original.inputs), name
            assert [o.type for o in registry[stand_in].outputs] == [o.type for o in original.outputs], name


def test_caches_of_executors_are_of_the_chosen_kind(ctx):
    ctx.run(PAIR, outputs=["2"])
    with ctx.kept[Executors].one(draft=False) as executor:
        assert isinstance(executor.cache, ClassicCache)
