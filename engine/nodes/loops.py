"""Loops: Start Loop and End Loop as a prompt has them, and the nodes that stand for a loop while it runs.

The executor gets one LoopRun for each loop (engine/graph/loops.py). It expands into a LoopIteration, a copy of the body
and a LoopResult for each iteration, with ids that are the same every time.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from engine.errors import GraphError
from engine.graph.loops import moved
from engine.graph.node import In, NodeContext, Out, node

BIGGEST = 2**63 - 1
MOST = 100_000  # iterations of one loop
ANY = Annotated[Any, In("*")]
MODES = {
    "options": [
        {"key": "simple", "inputs": {"required": {"num_iterations": ["INT", {"default": 4, "min": 0, "max": MOST}]}}},
        {
            "key": "For",
            "inputs": {
                "required": {
                    "start_iteration_index": ["INT", {"default": 0, "min": -BIGGEST, "max": BIGGEST}],
                    "max_iteration": ["INT", {"default": 4, "min": -BIGGEST, "max": BIGGEST}],
                    "step": ["INT", {"default": 1, "min": 1, "max": BIGGEST}],
                }
            },
        },
        {"key": "List", "inputs": {"required": {"list": ["*", {"tooltip": "The body runs once for each of these."}]}}},
    ]
}


def _slots(name: str, most: int) -> dict[str, Any]:
    return {"template": {"input": {"optional": {name: ["*", {}]}}, "prefix": name, "min": 0, "max": most}}


ITERATION = (
    Out("INT", "iteration_index"),
    Out("BOOLEAN", "is_first"),
    Out("BOOLEAN", "is_last"),
    Out("*", "list_item"),
    Out("*", "current_iteration_value", is_list=True),
)


class LoopNotClosed(GraphError):
    en = "{name} {node_id} has no counterpart. A loop goes from a Start Loop, by way of other nodes, to an End Loop."
    zh = "{name} {node_id} 没有与之配对的节点。循环应从 Start Loop 开始，经其他节点到 End Loop 结束。"


class BadLoop(GraphError):
    en = "The loop's {name} is {value}. It must be {wanted}."
    zh = "循环的 {name} 为 {value}，应为{wanted_zh}。"


@node(
    "StartLoop",
    title="Start Loop",
    title_zh="循环开始",
    category="logic",
    outputs=[*ITERATION[:4], Out("*", ITERATION[4].name)],
)
def start_loop(
    ctx: NodeContext,
    mode: Annotated[dict[str, Any], In("COMFY_DYNAMICCOMBO_V3", extra=MODES)],
    cache_iterations: Annotated[bool, In("BOOLEAN", default=False, tooltip="Keep what did not change since.")],
    parent_iteration: Annotated[
        int | None, In("INT", force_input=True, tooltip="iteration_index of the loop that this one is inside of.")
    ] = None,
    initial_iteration_value: Annotated[Any, In("*", tooltip="current_iteration_value at first.")] = None,
) -> tuple[Any, ...]:
    """All that hangs on it, up to End Loop, runs once per iteration."""
    raise LoopNotClosed(name="Start Loop", node_id=ctx.node_id)


@node("EndLoop", title="End Loop", title_zh="循环结束", category="logic", outputs=[Out("*", "outputs", is_list=True)])
def end_loop(
    ctx: NodeContext,
    accumulate: Annotated[bool, In("BOOLEAN", default=False, tooltip="Give what every iteration gave.")] = False,
    output_value: Annotated[Any, In("*", tooltip="What the loop gives.")] = None,
    next_iteration_value: Annotated[Any, In("*", tooltip="current_iteration_value of the next iteration.")] = None,
    terminations: Annotated[
        Any, In("COMFY_AUTOGROW_V3", extra=_slots("termination", 50), tooltip="What else has to run each time.")
    ] = None,
) -> tuple[Any]:
    raise LoopNotClosed(name="End Loop", node_id=ctx.node_id)


def _always_anew() -> float:
    return math.nan  # it costs nothing; the nodes that it asks for are kept or not by themselves


@node(
    "LoopRun",
    category="logic",
    outputs=[Out("*", is_list=True)],
    input_is_list=True,
    internal=True,
    fingerprint=_always_anew,
)
def loop_run(
    ctx: NodeContext,
    mode: Annotated[dict[str, Any], In("COMFY_DYNAMICCOMBO_V3", extra=MODES)],
    accumulate: Annotated[list[bool], In("BOOLEAN")],
    body: Annotated[list[dict[str, Any]], In("*")],
) -> dict[str, Any]:
    rows, inner = _iterations(mode), body[0]
    graph: dict[str, Any] = {}
    result: Any = None
    value = inner["initial"]
    for place, (index, item) in enumerate(rows):
        prefix = f"{ctx.node_id}.{place}."
        names = {name: prefix + name for name in (inner["start"], *inner["nodes"])}
        about = {"index": index, "is_first": place == 0, "is_last": place == len(rows) - 1, "reuse": inner["reuse"]}
        graph[names[inner["start"]]] = {
            "class_type": "LoopIteration",
            "inputs": {**about, "item": {"__value__": item}, **({} if value is None else {"value": value})},
            "override_display_id": inner["start"],
        }
        for name, written in inner["nodes"].items():
            graph[names[name]] = {**written, "inputs": moved(written.get("inputs") or {}, names)}
        value = moved(inner["next"], names)
        given = {"so_far": result, "value": moved(inner["output"], names), "next": value}
        ends = {f"ends.end{number}": link for number, link in enumerate(moved(inner["terminations"], names))}
        graph[f"{prefix}result"] = {
            "class_type": "LoopResult",
            "inputs": {"accumulate": bool(accumulate[0]), **{k: v for k, v in given.items() if v is not None}, **ends},
        }
        result = [f"{prefix}result", 0]
    return {"result": ([] if result is None else result,), "expand": graph}


def _reused(reuse: bool) -> bool | float:
    return True if reuse else math.nan


@node("LoopIteration", category="logic", outputs=ITERATION, input_is_list=True, internal=True, fingerprint=_reused)
def loop_iteration(
    ctx: NodeContext,
    index: Annotated[list[int], In("INT")],
    is_first: Annotated[list[bool], In("BOOLEAN")],
    is_last: Annotated[list[bool], In("BOOLEAN")],
    item: ANY,
    reuse: Annotated[list[bool], In("BOOLEAN")],
    value: Annotated[list[Any] | None, In("*")] = None,
) -> tuple[Any, ...]:
    return index[0], is_first[0], is_last[0], item[0], [None] if value is None else value


@node("LoopResult", category="logic", outputs=[Out("*", is_list=True)], input_is_list=True, internal=True)
def loop_result(
    ctx: NodeContext,
    accumulate: Annotated[list[bool], In("BOOLEAN")],
    so_far: Annotated[list[Any] | None, In("*")] = None,
    value: Annotated[list[Any] | None, In("*")] = None,
    next: Annotated[list[Any] | None, In("*")] = None,
    ends: Annotated[Any, In("COMFY_AUTOGROW_V3", extra=_slots("end", 100))] = None,
) -> tuple[list[Any]]:
    """What an iteration gave, after what those before it gave."""
    return ([*((so_far or []) if accumulate[0] else []), *(value or [])],)


def _iterations(mode: dict[str, Any]) -> list[tuple[int, Any]]:
    """(index, item of the list) of each."""
    kind = mode["mode"][0]
    if kind == "List":
        items = mode["list"]
        items = items[0] if len(items) == 1 and isinstance(items[0], list | tuple) else items
        return list(enumerate(items))
    if kind == "For":
        step = mode["step"][0]
        if step < 1:
            raise BadLoop(name="step", value=step, wanted="1 or more", wanted_zh="不小于 1 的整数")
        indices = range(mode["start_iteration_index"][0], mode["max_iteration"][0], step)
    else:
        indices = range(mode["num_iterations"][0])
    if len(indices) > MOST:
        raise BadLoop(name="iterations", value=len(indices), wanted=f"{MOST} or fewer", wanted_zh=f"不超过 {MOST}")
    return [(index, None) for index in indices]
