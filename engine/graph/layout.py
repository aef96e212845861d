"""An API prompt becomes a workflow of the editor: nodes in columns by what they depend on, values by place.

The way back of engine/graph/workflow.py, for pictures and programs that carry a prompt only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.graph.catalogue import Catalogue
from engine.graph.dynamic import live, specs_of
from engine.graph.links import is_link, unwrapped
from engine.graph.widget_places import shown_widgets

WIDTH, GAP = 270, 40
TITLE = 30  # stands above a node's position, as the editor draws it
SOCKET, LINE, TEXT, MARGIN = 20, 24, 110, 12  # heights: of a socket, a value, a text of several lines
MOST_OUTPUTS = 100


def to_workflow(prompt: Mapping[str, Any], catalogue: Catalogue) -> dict[str, Any]:
    """The workflow (format 0.4) whose prompt this is. Ids that are numbers stay. Node types that are not known keep
    their links and lose their values. Links to nodes that are not there are left out."""
    ids = _numbered(prompt)
    links: list[list[Any]] = []
    nodes = {key: _node(ids[key], key, prompt[key], catalogue) for key in prompt}
    for key, node in nodes.items():
        given: Mapping[str, Any] = prompt[key].get("inputs") or {}
        for place, item in enumerate(node["inputs"]):
            source: Any = given.get(item["name"])
            if not is_link(source) or str(source[0]) not in nodes:
                continue
            origin, slot = nodes[str(source[0])], int(source[1])
            if not 0 <= slot < MOST_OUTPUTS:
                continue
            _grow_outputs(origin, slot, item["type"])
            number = len(links) + 1
            kind = origin["outputs"][slot]["type"]
            links.append([number, origin["id"], slot, node["id"], place, kind])
            origin["outputs"][slot]["links"].append(number)
            item["link"] = number
    _arrange(prompt, nodes)
    return {
        "last_node_id": max(ids.values(), default=0),
        "last_link_id": len(links),
        "nodes": list(nodes.values()),
        "links": links,
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def _numbered(prompt: Mapping[str, Any]) -> dict[str, int]:
    taken = {int(key) for key in prompt if key.isdecimal() and len(key) < 9}
    free = max(taken, default=0)
    found = {}
    for key in prompt:
        if key.isdecimal() and int(key[:9]) in taken and str(int(key[:9])) == key:
            found[key] = int(key)
        else:
            free += 1
            found[key] = free
    return found


def _node(number: int, key: str, item: Mapping[str, Any], catalogue: Catalogue) -> dict[str, Any]:
    kind = str(item.get("class_type", ""))
    given: Mapping[str, Any] = item.get("inputs") or {}
    info = catalogue[kind].info if kind in catalogue else _unknown(given)
    inputs: list[dict[str, Any]] = []
    constants = {name: unwrapped(value) for name, value in given.items() if not is_link(value)}
    widgets = {one.name: one for one in shown_widgets(info, constants)}
    declared = specs_of(info["input"])
    for name, one in live(declared, given).items():
        linked = is_link(given.get(name))
        if name in widgets and linked:
            inputs.append({"name": name, "type": widgets[name].kind, "link": None, "widget": {"name": name}})
        elif name not in widgets and (linked or name in declared):
            inputs.append({"name": name, "type": str(one.spec.kind), "link": None, **_shape(one.spec.required)})
    values: list[Any] = []
    height = MARGIN
    for one in widgets.values():
        values += one.written(one.value(constants))
        height += (TEXT if one.options.get("multiline") else LINE) + (LINE if one.may_change else 0)
    outputs = [
        {"name": name, "type": out, "links": [], "slot_index": place}
        for place, (name, out) in enumerate(zip(info["output_name"], info["output"], strict=True))
    ]
    title = (item.get("_meta") or {}).get("title")
    height += SOCKET * max(len(inputs), len(outputs))
    return {
        "id": number,
        "type": kind,
        "pos": [0, 0],
        "size": [WIDTH, height],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": inputs,
        "outputs": outputs,
        **({"title": title} if title and title != info.get("display_name", kind) else {}),
        "properties": {"Node name for S&R": kind},
        "widgets_values": values,
    }


def _shape(required: bool) -> dict[str, Any]:
    return {} if required else {"shape": 7}


def _unknown(given: Mapping[str, Any]) -> dict[str, Any]:
    """What can be told of a node type that is not known here: its links."""
    links = {name: ["*", {}] for name, value in given.items() if is_link(value)}
    return {"input": {"required": links}, "input_order": {}, "output": [], "output_name": []}


def _grow_outputs(node: dict[str, Any], slot: int, kind: str) -> None:
    """A node type that is not known gets as many outputs as are used."""
    while len(node["outputs"]) <= slot:
        place = len(node["outputs"])
        node["outputs"].append({"name": kind, "type": kind, "links": [], "slot_index": place})


def _arrange(prompt: Mapping[str, Any], nodes: dict[str, dict[str, Any]]) -> None:
    """Columns from left to right, each node right of all that it needs; within a column in the order of the prompt."""
    columns = _columns(prompt)
    heights: dict[int, float] = {}
    order = sorted(nodes, key=lambda key: columns[key])
    for place, key in enumerate(order):
        column, node = columns[key], nodes[key]
        top = heights.get(column, 0)
        node["pos"] = [column * (WIDTH + GAP), top]
        node["order"] = place
        heights[column] = top + node["size"][1] + TITLE + GAP


def _columns(prompt: Mapping[str, Any]) -> dict[str, int]:
    """The longest way from a node without inputs, without recursion; a cycle counts from where it is met."""
    columns: dict[str, int] = {}
    for start in prompt:
        stack, on_way = [start], set[str]()
        while stack:
            key = stack[-1]
            if key in columns:
                stack.pop()
                continue
            on_way.add(key)
            given = (prompt[key].get("inputs") or {}).values()
            sources = [str(value[0]) for value in given if is_link(value) and str(value[0]) in prompt]
            waiting = [source for source in sources if source not in columns and source not in on_way]
            if waiting:
                stack.extend(waiting)
                continue
            columns[key] = 1 + max((columns[source] for source in sources if source in columns), default=-1)
            stack.pop()
    return columns
