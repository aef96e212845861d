"""The widgets of a node in the editor's workflow JSON as a form shows them: their choices now, how to set their values.

Where the values lie is engine/graph/widget_places.py's. Nodes that are an instance of a subgraph show widgets of nodes
inside it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.graph.catalogue import Catalogue, Listing
from engine.graph.widget_places import OWN_INPUT, Shown, promoted, shown_widgets
from engine.workspace import Workspace

KINDS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
_LARGEST_DRAWN = 2**53 - 1  # a seed that a browser's number can hold


@dataclass(frozen=True)
class Widget:
    """One value of a node that a person can change. `place` is its index in `widgets_values`, or its key there."""

    name: str
    kind: str  # one of KINDS
    options: Mapping[str, Any]
    choices: tuple[Any, ...]
    place: int | str
    controlled: bool = False  # the value after it says what happens to it after a run
    linked: bool = False  # a link gives the value, so setting it does nothing

    def value(self, node: Mapping[str, Any]) -> Any:
        values = node.get("widgets_values")
        if isinstance(values, Mapping):
            return values.get(self.place, self.options.get("default"))
        if isinstance(values, list) and isinstance(self.place, int) and self.place < len(values):
            return values[self.place]
        return self.options.get("default")

    def set(self, node: dict[str, Any], value: Any) -> None:
        """Changes the node."""
        values = node.get("widgets_values")
        if isinstance(values, dict):
            values[self.place] = value
            return
        row = list(values) if isinstance(values, list) else []
        assert isinstance(self.place, int)
        row += [None] * (self.place + 1 - len(row))
        row[self.place] = value
        node["widgets_values"] = row


class Widgets:
    """The widgets of nodes of one workflow, with the choices that a workspace offers now."""

    def __init__(self, workflow: Mapping[str, Any], catalogue: Catalogue, workspace: Workspace) -> None:
        self._catalogue = catalogue
        self._listing = Listing(workspace)
        definitions = workflow.get("definitions")
        subgraphs = definitions.get("subgraphs") if isinstance(definitions, Mapping) else None
        self._subgraphs = {str(one["id"]): one for one in subgraphs or () if isinstance(one, Mapping) and "id" in one}

    def of(self, node: Mapping[str, Any]) -> list[Widget]:
        """In the order in which the editor shows them; nothing for a node type that is not known."""
        kind = str(node.get("type", ""))
        found = self._of_instance(node) if kind in self._subgraphs else self._of_plain(node, kind)
        return list(found)

    def _of_plain(self, node: Mapping[str, Any], kind: str) -> Iterator[Widget]:
        values, linked = node.get("widgets_values"), _linked(node)
        for one in self._shown(kind, values):
            if one.kind in KINDS:
                place = one.name if isinstance(values, Mapping) else one.place
                yield _widget(one, place, one.controlled, one.name in linked)

    def _of_instance(self, node: Mapping[str, Any]) -> Iterator[Widget]:
        definition = self._subgraphs[str(node["type"])]
        linked = _linked(node)
        for place, (inner_id, name) in enumerate(promoted(node, definition)):
            inner, inner_name = _inside(definition, inner_id, name)
            if inner is None:
                continue
            shown = self._shown(str(inner.get("type", "")), inner.get("widgets_values"))
            one = next((one for one in shown if one.name == inner_name and one.kind in KINDS), None)
            if one is not None:
                yield _widget(replace(one, name=name), place, False, name in linked)

    def _shown(self, kind: str, values: Any) -> Iterator[Shown]:
        if kind in self._catalogue:
            yield from shown_widgets(self._catalogue[kind].resolved(self._listing), values)


def advance(node: dict[str, Any], widgets: Sequence[Widget], rng: random.Random) -> None:
    """What the editor does with seeds after a run: raise, lower or draw them, as the value beside each says."""
    for widget in widgets:
        values = node.get("widgets_values")
        if not widget.controlled or not isinstance(values, list) or not isinstance(widget.place, int):
            continue
        value, control = widget.value(node), values[widget.place + 1]
        low, high = int(widget.options.get("min", 0)), int(widget.options.get("max", _LARGEST_DRAWN))
        if control == "randomize":
            widget.set(node, rng.randint(low, min(high, _LARGEST_DRAWN)))
        elif control in ("increment", "decrement") and isinstance(value, int):
            widget.set(node, max(low, min(high, value + (1 if control == "increment" else -1))))


def _widget(one: Shown, place: int | str, controlled: bool, linked: bool) -> Widget:
    choices = tuple(one.options.get("options") or ()) if one.kind == "COMBO" else ()
    return Widget(one.name, one.kind, one.options, choices, place, controlled, linked)


def _linked(node: Mapping[str, Any]) -> set[str]:
    """Names of the widgets that a link feeds."""
    return {
        item["widget"]["name"] if isinstance(item.get("widget"), Mapping) and "name" in item["widget"] else item["name"]
        for item in node.get("inputs") or ()
        if isinstance(item, Mapping) and item.get("link") is not None and "name" in item
    }


def _inside(definition: Mapping[str, Any], inner_id: str, name: str) -> tuple[Mapping[str, Any] | None, str]:
    """The node inside a subgraph whose widget is meant, and the widget's name there."""
    nodes = {str(node.get("id")): node for node in definition.get("nodes") or () if isinstance(node, Mapping)}
    if inner_id != OWN_INPUT:
        return nodes.get(inner_id), name
    rim = next((item for item in definition.get("inputs") or () if item.get("name") == name), None)
    links = set((rim or {}).get("linkIds") or ())
    for node in nodes.values():
        for item in node.get("inputs") or ():
            if item.get("link") in links:
                return node, (item.get("widget") or item).get("name", item.get("name", name))
    return None, name
