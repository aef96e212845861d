"""Loops of a prompt: which Start Loop belongs to which End Loop, what lies between them, and what is wrong with that.

All that hangs on a Start Loop is its body, until the End Loop that closes it. A loop inside another hangs on the outer
one's Start Loop (its `parent_iteration` does, if nothing else). What hangs on a body and on its End Loop has no place.

`folded` makes one node of each loop, innermost first: its body is a constant of that node, which expands into as many
copies as there are iterations (engine/nodes/loops.py). So the body itself never runs, and the executor knows no loops.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from engine.graph.links import is_link
from engine.graph.registry import Registry

START, END, RUN = "StartLoop", "EndLoop", "LoopRun"
OUTSIDE = frozenset(("accumulate",))  # inputs of an End Loop that belong to no iteration


@dataclass(frozen=True)
class LoopProblem:
    node_id: str
    kind: str  # as in the "type" of a validation error
    message: str
    details: str
    nodes: tuple[str, ...]


@dataclass
class Loops:
    """`opened`: the Start Loops that each node is inside of; `end_of`: {start: end}."""

    opened: dict[str, frozenset[str]] = field(default_factory=dict)
    before: dict[str, frozenset[str]] = field(default_factory=dict)  # those around each Start Loop
    end_of: dict[str, str] = field(default_factory=dict)
    problems: list[LoopProblem] = field(default_factory=list)
    bad: set[str] = field(default_factory=set)  # ids of all nodes that problems name

    def outermost_end(self, node_id: str) -> str | None:
        """The end of the outermost loop that a node lies in."""
        around = [start for start in self.opened.get(node_id, ()) if start != node_id]
        return self.end_of.get(min(around, key=lambda start: len(self.before[start]))) if around else None


@dataclass(frozen=True)
class Folded:
    """A prompt without loops. `outside`: nodes that bodies link to."""

    prompt: Mapping[str, Any]
    outputs: Sequence[str]
    outside: Sequence[str] = ()


def loops_of(prompt: Mapping[str, Any]) -> Loops:
    """The loops of a prompt, which may be anything; nodes of a dependency cycle are in none."""
    found = Loops()
    if not any(node["class_type"] in (START, END) for node in prompt.values()):
        return found
    closed: dict[str, frozenset[str]] = {}
    sources = {node_id: list(_sources(prompt, node_id)) for node_id in prompt}
    for node_id in _in_order(sources):
        inside: frozenset[str] = frozenset().union(*(found.opened[source] for source in sources[node_id]))
        over: frozenset[str] = frozenset().union(*(closed[source] for source in sources[node_id]))
        kind = prompt[node_id]["class_type"]
        _judge_place(found, prompt, node_id, sources[node_id], inside, over)
        if kind == START:
            found.before[node_id] = inside
            inside |= {node_id}
        elif kind == END:
            start = _innermost(found, inside)
            if start is None:
                details = f"End Loop {node_id}: nothing that it is linked to comes from a Start Loop"
                _problem(found, node_id, "loop_without_start", "End Loop has no Start Loop", details)
            elif start in found.end_of:
                details = f"Start Loop {start} is closed by {found.end_of[start]} and by {node_id}: remove one of them"
                _problem(found, node_id, "loop_closed_twice", "Loop has two End Loops", details, start)
            else:
                found.end_of[start] = node_id
            if start is not None:
                inside, over = inside - {start}, over | {start}
        found.opened[node_id], closed[node_id] = inside, over
    for start in found.before:
        if start not in found.end_of:
            details = f"Start Loop {start}: link what it gives, by way of other nodes, to an End Loop"
            _problem(found, start, "loop_without_end", "Start Loop has no End Loop", details)
    return found


def folded(prompt: Mapping[str, Any], outputs: Sequence[str], registry: Registry) -> Folded:
    """One node in the place of each loop. An output node within a body is told by its loop, in every iteration. Loops
    with a problem stay as they are: what was judged good needs none of them."""
    loops = loops_of(prompt)
    if not loops.end_of:
        return Folded(prompt, outputs)
    nodes: dict[str, Any] = dict(prompt)
    shown = set(outputs)
    telling: set[str] = set()  # loops with output nodes
    for start in sorted(loops.end_of, key=lambda one: -len(loops.before[one])):
        end = loops.end_of[start]
        if {start, end} & loops.bad or start not in nodes or end not in nodes:
            continue
        body = {n: nodes[n] for n in nodes if start in loops.opened.get(n, ()) and n != start}
        used = {link[0] for node in (*body.values(), nodes[end]) for link in _links_in(node.get("inputs") or {})}
        outs = {n for n in body if n not in telling and registry[body[n]["class_type"]].declaration.output_node}
        for node_id in outs - shown - used:
            del body[node_id]
        nodes[end] = _run_node(nodes[start], nodes[end], start, body, [n for n in body if n in telling])
        if telling.intersection(body) or outs & shown:
            telling.add(end)
        for node_id in (start, *(n for n in prompt if n in nodes and start in loops.opened.get(n, ()) and n != start)):
            del nodes[node_id]
    roots = dict.fromkeys(output if output in nodes else loops.outermost_end(output) or output for output in outputs)
    runs = (node for node in nodes.values() if node["class_type"] == RUN)
    outside = dict.fromkeys(link[0] for node in runs for link in _links_in(node["inputs"]) if link[0] in nodes)
    return Folded(nodes, list(roots), list(outside))


def moved(value: Any, names: Mapping[str, str]) -> Any:
    """`value` with its links to other nodes: {id: new id}."""
    if is_link(value):
        return [names.get(value[0], value[0]), value[1]]
    if isinstance(value, dict):
        return {key: moved(one, names) for key, one in value.items()}
    return [moved(one, names) for one in value] if isinstance(value, list) else value


def _run_node(
    start: Mapping[str, Any], end: Mapping[str, Any], start_id: str, body: Mapping[str, Any], telling: Collection[str]
) -> dict[str, Any]:
    opening, closing = start.get("inputs") or {}, end.get("inputs") or {}
    terminations = [value for name, value in closing.items() if name.startswith("termination") and is_link(value)]
    mode = {name: value for name, value in opening.items() if name.partition(".")[0] == "mode"}
    inner = {
        "start": start_id,
        "nodes": {n: {"override_display_id": n, **node} for n, node in body.items()},
        "initial": opening.get("initial_iteration_value"),
        "next": closing.get("next_iteration_value"),
        "output": closing.get("output_value"),
        "terminations": [*terminations, *([node_id, 0] for node_id in telling)],
        "reuse": opening.get("cache_iterations") is True,
    }
    inputs = {**mode, "accumulate": closing.get("accumulate", False), "body": inner}
    return {**end, "class_type": RUN, "inputs": inputs}


def _links_in(value: Any) -> Iterator[list[Any]]:
    if is_link(value):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _links_in(one)


def _sources(prompt: Mapping[str, Any], node_id: str) -> Iterator[str]:
    node = prompt[node_id]
    for name, value in (node.get("inputs") or {}).items():
        if is_link(value) and value[0] in prompt and not (node["class_type"] == END and name in OUTSIDE):
            yield value[0]


def _in_order(sources: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Each node after what it hangs on."""
    users: dict[str, list[str]] = {node_id: [] for node_id in sources}
    waiting = {node_id: len(some) for node_id, some in sources.items()}
    for node_id, some in sources.items():
        for source in some:
            users[source].append(node_id)
    ready = [node_id for node_id, count in waiting.items() if not count]
    while ready:
        node_id = ready.pop()
        yield node_id
        for user in users[node_id]:
            waiting[user] -= 1
            if not waiting[user]:
                ready.append(user)


def _innermost(loops: Loops, inside: frozenset[str]) -> str | None:
    """The open Start Loop that all the others are around."""
    return max(inside, key=lambda start: (len(loops.before[start]), start), default=None)


def _judge_place(
    loops: Loops,
    prompt: Mapping[str, Any],
    node_id: str,
    sources: Sequence[str],
    inside: frozenset[str],
    over: frozenset[str],
) -> None:
    """Told where it begins: not again by all that hangs on the node."""
    kind = prompt[node_id]["class_type"]
    both = sorted(inside & over)
    if both and not any(both[0] in loops.opened[source] and source in loops.bad for source in sources):
        end = loops.end_of.get(both[0], "?")
        details = f"{kind} {node_id} uses what is inside of the loop {both[0]} and what its End Loop {end} gives"
        _problem(loops, node_id, "loop_value_escapes", "Value leaves a loop beside its End Loop", details, both[0])
    chain = sorted(inside, key=lambda start: len(loops.before[start]))
    for outer, inner in pairwise(chain):
        if outer not in loops.before[inner] and not any({outer, inner} <= loops.opened[source] for source in sources):
            details = (
                f"{kind} {node_id} is in the loops {outer} and {inner}, and neither is inside of the other: "
                "link the outer one's iteration_index to the inner one's parent_iteration"
            )
            _problem(loops, node_id, "loops_overlap", "Loops overlap", details, outer, inner)
            return


def _problem(loops: Loops, node_id: str, kind: str, message: str, details: str, *others: str) -> None:
    loops.problems.append(LoopProblem(node_id, kind, message, details, (node_id, *others)))
    loops.bad.update((node_id, *others))
