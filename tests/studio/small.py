"""A studio at its smallest: the real store, supervisor, worker process and catalogue, with four nodes made here."""

from __future__ import annotations

import time
from typing import Annotated, Any

from PIL import Image
from pydantic import BaseModel

from engine.graph.catalogue import Catalogue
from engine.graph.node import In, InputFiles, NodeContext, Out, node
from engine.graph.registry import Registry
from engine.jobs.types import JobContext, JobKind, Priority
from engine.jobs.worker import WorkerHandle


class PromptSettings(BaseModel):
    prompt: dict[str, Any]
    extra_data: dict[str, Any] = {}
    client_id: str = ""
    outputs: list[str] = []
    draft: bool = False


@node("Number", title="Number", category="test", outputs=[Out("INT")])
def number(ctx: NodeContext, value: Annotated[int, In("INT", default=1, min=0, max=2**64 - 1)]) -> tuple[int]:
    return (value,)


@node("Show", title="Show", category="test", outputs=[], output_node=True)
def show(ctx: NodeContext, value: Annotated[int, In("INT,STRING", force_input=True)]) -> dict[str, Any]:
    return {"ui": {"text": [str(value)]}}


@node("Hold", title="Hold", category="test", outputs=[], output_node=True)
def hold(
    ctx: NodeContext,
    seconds: Annotated[float, In("FLOAT", default=1.0, min=0.0, max=60.0)],
    mode: Annotated[str, In(["sleep", "fail", "die", "spin", "warn"])],
) -> dict[str, Any]:
    return {}


@node("OpenPicture", title="Open", category="test", outputs=[Out("IMAGE")], output_node=True)
def open_picture(ctx: NodeContext, image: Annotated[str, In(InputFiles((".png",), "picture"))]) -> tuple[str]:
    return (image,)


KINDS = {"generate": JobKind("generate", "tests.studio.small:run", PromptSettings, Priority.interactive)}


def setup(worker: WorkerHandle) -> None:
    Catalogue.of(Registry([number, show, hold, open_picture])).save(worker.workspace.cache)
    worker.handlers["snapshot"] = lambda payload: {"device": "CPU", "kind": "cpu", "total": 4, "free": 3}
    worker.handlers["free"] = lambda payload: {}
    worker.handlers["validate_inputs"] = lambda payload: {"answers": [{} for _ in payload["checks"]]}


def setup_with_all_nodes(worker: WorkerHandle) -> None:
    """The same, and a catalogue with every node of the studio beside those here; this imports torch."""
    from engine.nodes import load_all

    setup(worker)
    registry = Registry([number, show, hold, open_picture])
    load_all(registry)
    Catalogue.of(registry).save(worker.workspace.cache)


def run(ctx: JobContext, settings: PromptSettings) -> dict[str, Any]:
    """ComfyUI's messages in their order, for the nodes above."""
    about = {"prompt_id": ctx.job_id, "timestamp": 1}
    messages: list[list[Any]] = [["execution_start", about]]
    ctx.emit("execution_start", **about)
    ctx.emit("execution_cached", nodes=[], **about)
    outputs: dict[str, Any] = {}
    for node_id in settings.outputs:
        item = settings.prompt[node_id]
        ctx.emit("executing", node=node_id, display_node=node_id, prompt_id=ctx.job_id)
        state = {"value": 0.0, "max": 1.0, "state": "running", "node_id": node_id}
        ctx.emit("progress_state", prompt_id=ctx.job_id, nodes={node_id: state})
        ctx.preview(Image.new("RGB", (8, 8), "red"), node_id=node_id)
        if item["class_type"] == "Hold":
            _hold(ctx, item["inputs"]["mode"], float(item["inputs"]["seconds"]))
        outputs[node_id] = {"text": [node_id]}
        finished = {**state, "value": 1.0, "state": "finished"}
        ctx.emit("progress_state", prompt_id=ctx.job_id, nodes={node_id: finished})
        ctx.emit("executed", node=node_id, display_node=node_id, output=outputs[node_id], prompt_id=ctx.job_id)
    messages.append(["execution_success", about])
    ctx.emit("execution_success", **about)
    ctx.emit("executing", node=None, prompt_id=ctx.job_id)
    status = {"status_str": "success", "completed": True, "messages": messages}
    return {"outputs": outputs, "meta": {}, "status": status}


def _hold(ctx: JobContext, mode: str, seconds: float) -> None:
    import os

    if mode == "fail":
        raise RuntimeError("the node failed")
    if mode == "warn":
        ctx.emit("easel_warning", node_id="9", node_type="Hold", en="odd", zh="奇怪", prompt_id=ctx.job_id)
        return
    if mode == "die":
        os.abort()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if mode == "sleep":
            ctx.progress(1, 2)
            time.sleep(0.02)
