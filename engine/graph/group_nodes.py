"""Group nodes, which the editor had before subgraphs, become subgraphs: one for each place where a group is used.

A node of the type "workflow>NAME" (older: "workflow/NAME") holds the values of all nodes of its group in its own list.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from engine.graph.catalogue import Catalogue
from engine.graph.group_shape import BUTTON, MOST_GROUPS, Exposed, Group, Groups, TooManyGroups, is_known
from engine.graph.widget_places import INPUT_NODE, OUTPUT_NODE, Shown, shown_widgets


def without_group_nodes(workflow: Mapping[str, Any], catalogue: Catalogue, *, whole: bool = True) -> dict[str, Any]:
    """The workflow with subgraphs in place of its group nodes; the same one where none is used. Node 2 of the group at
    node 5 keeps the id "5:2" that it had in prompts. A group with a node type that is not known loses that node's
    values and links, and is left as it is where not the `whole` workflow has to be without groups.
    Raises TooManyGroups."""
    groups = (workflow.get("extra") or {}).get("groupNodes")
    if not groups:
        return dict(workflow)
    if not whole:
        groups = {name: group for name, group in groups.items() if is_known(group, groups, catalogue)}
    found = copy.deepcopy(dict(workflow))
    definitions: list[dict[str, Any]] = list((found.get("definitions") or {}).get("subgraphs") or ())
    before = len(definitions)
    waiting: list[tuple[str, dict[str, Any]]] = [("", found), *((str(one["id"]), one) for one in definitions)]
    known = Groups(groups, catalogue)
    while waiting:
        path, graph = waiting.pop()
        for place, node in enumerate(graph["nodes"]):
            group = known.of(node["type"])
            if group is None:
                continue
            if len(definitions) >= MOST_GROUPS:
                raise TooManyGroups(most=MOST_GROUPS)
            inner = f"{path}/{node['id']}"
            graph["nodes"][place], definition = _use(group, node, str(uuid.uuid5(uuid.NAMESPACE_OID, inner)))
            _renumber_targets(graph, graph["nodes"][place])
            definitions.append(definition)
            waiting.append((inner, definition))
    if len(definitions) == before:
        return dict(workflow)
    found["extra"]["groupNodes"] = {
        name: one for name, one in found["extra"]["groupNodes"].items() if name not in groups
    }
    found["definitions"] = {**(found.get("definitions") or {}), "subgraphs": definitions}
    return found


def _use(group: Group, node: Mapping[str, Any], identity: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """One use of a group: the instance of a subgraph, and its definition with the values that stood at the node."""
    nodes = [_inside(one, place) for place, one in enumerate(copy.deepcopy(group.nodes))]
    values = _set_values(group, node, nodes)
    links: list[dict[str, Any]] = []
    for origin, slot, target, target_slot, *more in group.links:
        _link(links, int(origin), int(slot), nodes[int(target)], int(target_slot), more[1] if len(more) > 1 else "*")
    inputs, rim = [], []
    given = {item["name"]: item.get("link") for item in node.get("inputs") or ()}
    shown = [one for one in group.shown if one.inner != BUTTON and nodes[one.node]["type"] != "PrimitiveNode"]
    for place, one in enumerate(shown):
        kind = one.spec.kind if isinstance(one.spec.kind, str) else "COMBO"
        widget = {"widget": {"name": one.name}} if one.widget else {}
        inputs.append({"name": one.name, "type": kind, "link": given.get(one.name), **widget})
        slot = _slot_of(nodes[one.node], one, kind)
        number = _link(links, INPUT_NODE, place, nodes[one.node], slot, kind)
        rim.append(_rim(identity, one.name, kind, number))
    outputs = []
    for place, (inner, slot, name, kind) in enumerate(group.outputs):
        number = _link(links, inner, slot, {"id": OUTPUT_NODE}, place, kind)
        outputs.append(_rim(identity, name, kind, number))
    written = node.get("outputs") or []
    shown_outputs = [
        {**(written[place] if place < len(written) else {"links": None}), "name": name, "type": kind}
        for place, (*_, name, kind) in enumerate(group.outputs)
    ]
    instance = {
        **node,
        "type": identity,
        "inputs": inputs,
        "outputs": shown_outputs,
        "title": node.get("title") or group.name,
        "properties": {},
        "widgets_values": [values.get(one.name) for one in shown if one.widget],
    }
    last = {"lastNodeId": len(nodes), "lastLinkId": len(links), "lastGroupId": 0, "lastRerouteId": 0}
    definition = {
        "id": identity,
        "version": 1,
        "state": last,
        "revision": 0,
        "config": {},
        "name": group.name,
        "inputNode": {"id": INPUT_NODE, "bounding": [-200, 0, 120, 60]},
        "outputNode": {"id": OUTPUT_NODE, "bounding": [1600, 0, 120, 60]},
        "inputs": rim,
        "outputs": outputs,
        "widgets": [],
        "nodes": nodes,
        "links": links,
        "groups": [],
    }
    return instance, definition


def _set_values(group: Group, node: Mapping[str, Any], nodes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Writes the values that stand at a group node into the nodes inside; they are returned by their names outside."""
    values = node.get("widgets_values")
    inside: dict[int, dict[str, tuple[Shown, Any]]] = {}
    found: dict[str, Any] = {}
    by_name = {one.name: one for one in group.shown}
    for widget in shown_widgets(group.info, values):
        outer = widget.name if widget.name in by_name else widget.name.rpartition(".")[0]
        while outer not in by_name and "." in outer:
            outer = outer.rpartition(".")[0]
        one = by_name[outer]
        found[widget.name] = widget.value(values)
        inside.setdefault(one.node, {})[one.inner + widget.name.removeprefix(outer)] = (widget, found[widget.name])
    for place, some in inside.items():
        if nodes[place]["type"] == "PrimitiveNode":
            nodes[place]["widgets_values"] = [some["value"][1], _control(some["value"][0], values)]
            continue
        info = group.infos[place]
        assert info is not None
        mine = {name: value for name, (_, value) in some.items()}
        row: list[Any] = []
        for one in shown_widgets(info, mine):
            written = one.written(one.value(mine))
            if one.may_change and one.name in some:
                written[1] = _control(some[one.name][0], values)
            row += written
        nodes[place]["widgets_values"] = row
    return found


def _control(widget: Shown, values: Any) -> str:
    return str(values[widget.place + 1]) if widget.controlled else "fixed"


def _inside(node: dict[str, Any], place: int) -> dict[str, Any]:
    items = [{**item, "link": None} for item in node.get("inputs") or ()]
    outputs = [{**item, "links": None} for item in node.get("outputs") or ()]
    usual = {"pos": [place * 320, 0], "size": [300, 200], "flags": {}, "mode": 0, "properties": {}}
    return {**usual, **node, "id": place, "order": place, "inputs": items, "outputs": outputs}


def _slot_of(node: dict[str, Any], one: Exposed, kind: str) -> int:
    """Where an input stands at its node, which gets one if it has none of that name."""
    items: list[dict[str, Any]] = node["inputs"]
    if node["type"] == "Reroute" and items:
        return 0
    found = next((slot for slot, item in enumerate(items) if item.get("name") == one.inner), None)
    if found is None:
        items.append({"name": one.inner, "type": kind, "link": None})
        found = len(items) - 1
    if one.widget:
        items[found]["widget"] = {"name": one.inner}
    return found


def _link(links: list[dict[str, Any]], origin: int, slot: int, node: dict[str, Any], target: int, kind: Any) -> int:
    number = len(links) + 1
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    links.append(dict(zip(keys, (number, origin, slot, node["id"], target, kind), strict=True)))
    if node["id"] != OUTPUT_NODE:
        node["inputs"][target]["link"] = number
    return number


def _rim(identity: str, name: str, kind: str, link: int) -> dict[str, Any]:
    number = str(uuid.uuid5(uuid.UUID(identity), f"{link}"))
    return {"id": number, "name": name, "type": kind, "linkIds": [link]}


def _renumber_targets(graph: Mapping[str, Any], node: Mapping[str, Any]) -> None:
    """Links name the place of the input that they go into, which may be another one now."""
    places = {item["link"]: place for place, item in enumerate(node["inputs"]) if item["link"] is not None}
    for link in graph.get("links") or ():
        number, key = (link["id"], "target_slot") if isinstance(link, dict) else (link[0], 4)
        if number in places:
            link[key] = places[number]
