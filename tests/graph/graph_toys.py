"""Small nodes for the tests of the graph: numbers instead of pictures."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from engine.errors import Cancelled
from engine.graph.cache import Cache, ClassicCache
from engine.graph.context import RunContext
from engine.graph.executor import Executor, Outcome
from engine.graph.node import Blocker, In, InputPictures, Models, NodeContext, Out, node
from engine.graph.registry import Registry
from engine.workspace import Workspace

ANY = Annotated[Any, In("*")]
INT = Annotated[int, In("INT", default=0, min=-(2**53), max=2**53)]


@node("Const", category="toys", outputs=[Out("INT")])
def const(ctx: NodeContext, value: INT) -> tuple[int]:
    return (value,)


@node("Noop", category="toys", outputs=[Out("INT")])
def noop(ctx: NodeContext, value: Annotated[int, In("INT", force_input=True)]) -> tuple[int]:
    return (value,)


@node("Sink", category="toys", output_node=True)
def sink(ctx: NodeContext, value: ANY) -> dict[str, Any]:
    return {}


@node("Show", category="toys", output_node=True)
def show(ctx: NodeContext, value: ANY) -> dict[str, Any]:
    return {"ui": {"text": [str(value)]}}


@node("Warn", category="toys", outputs=[Out("INT")])
def warn(ctx: NodeContext, value: INT) -> tuple[int]:
    ctx.warn(f"{value} is odd", f"{value} 很奇怪")
    return (value,)


@node("Add", category="toys", outputs=[Out("INT", "sum")])
def add(ctx: NodeContext, a: INT, b: INT) -> tuple[int]:
    return (a + b,)


@node("Typed", category="toys", outputs=[Out("INT,FLOAT")])
def typed(
    ctx: NodeContext,
    steps: Annotated[int, In("INT", default=20, min=1, max=100)],
    cfg: Annotated[float, In("FLOAT", default=8.0, min=0.0, max=10.0)],
    text: Annotated[str, In("STRING", multiline=True)],
    on: Annotated[bool, In("BOOLEAN", default=True)],
    mode: Annotated[str, In(["a", "b"], default="a")],
    many: Annotated[str, In([str(n) for n in range(30)])] = "0",
    image: Annotated[Any, In("IMAGE")] = None,
) -> tuple[int]:
    return (steps,)


@node("Files", category="toys", outputs=[Out("IMAGE")])
def files(
    ctx: NodeContext,
    image: Annotated[str, In(InputPictures(), image_upload=True)],
    model: Annotated[str, In(Models("checkpoints"), tooltip="Which one.")],
) -> tuple[Any]:
    return (image,)


def _check_even(value: int | None) -> bool | str:
    return True if value is None or value % 2 == 0 else "must be even"


@node("Even", category="toys", outputs=[Out("INT")], validate=_check_even)
def even(ctx: NodeContext, value: Annotated[int, In("INT", min=0, max=10)]) -> tuple[int]:
    return (value,)


def _chosen(switch: bool, on_true: Any, on_false: Any) -> list[str]:
    name = "on_true" if switch else "on_false"
    return [name] if (on_true if switch else on_false) is None else []


@node("Switch", category="toys", outputs=[Out("*")], check_lazy=_chosen)
def switch(
    ctx: NodeContext,
    switch: Annotated[bool, In("BOOLEAN")],
    on_true: Annotated[Any, In("*", lazy=True)],
    on_false: Annotated[Any, In("*", lazy=True)],
) -> tuple[Any]:
    return (on_true if switch else on_false,)


@node("Range", category="toys", outputs=[Out("INT", is_list=True), Out("INT", "count")])
def range_list(ctx: NodeContext, count: INT) -> tuple[list[int], int]:
    return list(range(count)), count


@node("Total", category="toys", outputs=[Out("INT")], input_is_list=True)
def total(ctx: NodeContext, values: Annotated[list[int], In("INT")]) -> tuple[int]:
    return (sum(values),)


@node("Block", category="toys", outputs=[Out("*")])
def block(ctx: NodeContext, message: Annotated[str, In("STRING")]) -> tuple[Blocker]:
    return (Blocker(message or None),)


@node("Fail", category="toys", outputs=[Out("INT")])
def fail(ctx: NodeContext, value: INT) -> tuple[int]:
    raise ValueError(f"no good: {value}")


def _counter(ctx: NodeContext) -> int:
    return ctx.live["stamp"]


@node("Stamped", category="toys", outputs=[Out("INT")], fingerprint=_counter)
def stamped(ctx: NodeContext) -> tuple[int]:
    return (ctx.live["stamp"],)


def _never_equal(value: int) -> float:
    return float("nan")


@node("Fresh", category="toys", outputs=[Out("INT")], fingerprint=_never_equal)
def fresh(ctx: NodeContext, value: INT) -> tuple[int]:
    return (value,)


@node("Expand", category="toys", outputs=[Out("INT")])
def expand(ctx: NodeContext, value: INT, times: INT) -> dict[str, Any]:
    """value + times, by a chain of Adds."""
    link: Any = value
    for _ in range(times):
        link = ctx.graph.node("Add", a=link, b=1).out(0)
    ctx.graph.node("Show", value=link)
    return {"result": (link,), "expand": ctx.graph.finalize()}


@node("ExpandSome", category="toys", outputs=[Out("INT")])
def expand_some(ctx: NodeContext, value: INT) -> Any:
    """Odd values by an expansion, even ones at once."""
    if value % 2 == 0:
        return (value,)
    doubled = ctx.graph.node("Add", a=value, b=value)
    return {"result": (doubled.out(0),), "expand": ctx.graph.finalize()}


@node("ExpandCycle", category="toys", outputs=[Out("INT")])
def expand_cycle(ctx: NodeContext, value: INT) -> dict[str, Any]:
    first = ctx.graph.node("Noop", value=0)
    second = ctx.graph.node("Noop", value=first.out(0))
    first.set_input("value", second.out(0))
    return {"result": (second.out(0),), "expand": ctx.graph.finalize()}


@node("ExpandSelf", category="toys", outputs=[Out("INT")])
def expand_self(ctx: NodeContext, value: INT) -> dict[str, Any]:
    first = ctx.graph.node("Noop", value=[ctx.node_id, 0])
    return {"result": (first.out(0),), "expand": ctx.graph.finalize()}


@node("Wait", category="toys", outputs=[Out("INT")])
async def wait(ctx: NodeContext, value: INT) -> tuple[int]:
    ctx.live["log"].append(f"start {ctx.node_id}")
    for _ in range(value):
        await asyncio.sleep(0.005)
    ctx.live["log"].append(f"end {ctx.node_id}")
    return (value,)


@node("Steps", category="toys", outputs=[Out("INT")])
def steps(ctx: NodeContext, value: INT) -> tuple[int]:
    for step in range(value):
        ctx.progress(step + 1, value)
    return (value,)


@node("Own", category="toys", outputs=[Out("STRING")], hidden=["UNIQUE_ID"])
def own(ctx: NodeContext) -> tuple[str]:
    return (ctx.node_id,)


@node("Twice", category="toys", outputs=[Out("INT")], not_idempotent=True)
def twice(ctx: NodeContext, value: INT) -> tuple[int]:
    return (value,)


@node("Middle", category="toys", outputs=[Out("INT")], has_intermediate_output=True)
def middle(ctx: NodeContext, value: INT) -> dict[str, Any]:
    return {"ui": {"text": [f"middle {value}"]}, "result": (value,)}


@node("Object", category="toys", outputs=[Out("*")])
def an_object(ctx: NodeContext) -> dict[str, Any]:
    held = ctx.graph.node("Same", value=object())
    return {"result": (held.out(0),), "expand": ctx.graph.finalize()}


@node("Same", category="toys", outputs=[Out("*")])
def same(ctx: NodeContext, value: ANY) -> tuple[Any]:
    return (value,)


@node("Bad", category="toys", outputs=[Out("INT")])
def bad(ctx: NodeContext) -> Any:
    return 5


@node("Secret", category="toys", outputs=[Out("INT")], internal=True)
def secret(ctx: NodeContext) -> tuple[int]:
    return (1,)


IMAGES = {"template": {"input": {"required": {"one": ["INT", {"max": 99}]}}, "prefix": "n", "min": 1, "max": 4}}
MODES = {
    "options": [
        {"key": "plus", "inputs": {"required": {"by": ["INT", {"min": 0}], "more": ["INT", {"lazy": True}]}}},
        {
            "key": "say",
            "inputs": {
                "required": {
                    "how": [
                        "COMFY_DYNAMICCOMBO_V3",
                        {"options": [{"key": "word", "inputs": {"required": {"word": ["STRING", {}]}}}]},
                    ]
                }
            },
        },
    ]
}


@node("Grow", category="toys", outputs=[Out("STRING")])
def grow(ctx: NodeContext, numbers: Annotated[dict[str, int], In("COMFY_AUTOGROW_V3", extra=IMAGES)]) -> tuple[str]:
    return (str(numbers),)


def _more(mode: dict[str, Any]) -> list[str]:
    return ["mode.more"] if mode.get("mode") == "plus" and mode["by"] > 5 and mode.get("more") is None else []


@node("Mode", category="toys", outputs=[Out("STRING")], check_lazy=_more)
def mode(ctx: NodeContext, mode: Annotated[dict[str, Any], In("COMFY_DYNAMICCOMBO_V3", extra=MODES)]) -> tuple[str]:
    return (str(mode),)


@node("CheckpointLoaderSimple", category="loaders", outputs=[Out("MODEL"), Out("CLIP"), Out("VAE")])
def checkpoint_loader(
    ctx: NodeContext,
    ckpt_name: Annotated[str, In(Models("checkpoints"), tooltip="The name of the checkpoint (model) to load.")],
) -> tuple[str, str, str]:
    return "model", "clip", "vae"


def registry() -> Registry:
    found = Registry()
    found.add_module(sys.modules[__name__])
    return found


@dataclass
class Runner:
    """Runs prompts one after another through one executor and keeps what was told."""

    cache: Cache = field(default_factory=ClassicCache)
    live: dict[str, Any] = field(default_factory=dict)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    workspace: Workspace = field(default_factory=lambda: Workspace(Path("/nonexistent")))
    cancel_at: str = ""  # the node whose start interrupts the run

    def __post_init__(self) -> None:
        self.executor = Executor(registry(), self.cache)
        self.cancelled = False

    def run(self, prompt: dict[str, Any], outputs: list[str] | None = None) -> Outcome:
        self.events.clear()
        nodes = {node_id: node if "class_type" in node else _short(node) for node_id, node in prompt.items()}
        if outputs is None:
            types = self.executor.registry
            outputs = [n for n, node in nodes.items() if types[node["class_type"]].declaration.output_node]
        ctx = RunContext(
            "prompt-1",
            self.workspace,
            models=None,
            live=self.live,
            interrupt_check=self._check,  # type: ignore[arg-type]
        )
        return self.executor.run(nodes, ctx, outputs, self._heard)

    def _heard(self, event: str, data: dict[str, Any]) -> None:
        self.events.append((event, data))
        if event == "executing" and data["node"] == self.cancel_at:
            self.cancelled = True

    def _check(self) -> None:
        if self.cancelled:
            self.cancelled = False
            raise Cancelled

    def ran(self) -> list[str]:
        """Ids of the nodes that ran, in order."""
        return [data["node"] for event, data in self.events if event == "executing"]

    def names(self, *, without: tuple[str, ...] = ("progress_state",)) -> list[str]:
        return [event for event, _ in self.events if event not in without]

    def data(self, event: str) -> list[dict[str, Any]]:
        return [data for name, data in self.events if name == event]


def _short(node: dict[str, Any]) -> dict[str, Any]:
    """{"Add": {"a": 1}} for {"class_type": "Add", "inputs": {"a": 1}}"""
    ((class_type, inputs),) = node.items()
    return {"class_type": class_type, "inputs": inputs}


def text(outcome: Outcome) -> dict[str, str]:
    """What the Show nodes showed, by node id."""
    return {node_id: "|".join(ui["text"]) for node_id, ui in outcome.outputs.items()}
