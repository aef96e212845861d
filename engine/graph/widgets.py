"""The widgets of a node in the editor's workflow JSON: which there are, where their values lie, how to set them.

A workflow keeps widget values by place and not by name, so the node's declaration is needed to tell them apart. A seed
is followed by what happens to it after a run. Nodes that are an instance of a subgraph show widgets of nodes inside it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.graph.catalogue import Catalogue, Listing
from engine.graph.dynamic import DYNAMIC_COMBO, brought
from engine.workspace import Workspace

KINDS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
SEED_NAMES = ("seed", "noise_seed")
CONTROLS = ("fixed", "increment", "decrement", "randomize")
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
        """What a choice brings follows it."""
        values = node.get("widgets_values")
        linked, place = _linked(node), 0
        left = list(reversed(list(self._declared(kind))))
        while left:
            name, spec = left.pop()
            options = spec[1] if len(spec) > 1 else {}
            by_name = isinstance(values, Mapping)
            controlled = not by_name and _is_controlled(name, options, values, place)
            widget = _widget(name, spec, name if by_name else place, controlled, name in linked)
            place += 2 if controlled else 1
            left += reversed([one for one in brought(name, spec, widget.value(node)) if is_widget_input(one[1])])
            yield widget

    def _of_instance(self, node: Mapping[str, Any]) -> Iterator[Widget]:
        definition = self._subgraphs[str(node["type"])]
        linked = _linked(node)
        for place, (inner_id, name) in enumerate(_promoted(node)):
            inner, inner_name = _inside(definition, inner_id, name)
            spec = dict(self._declared(str(inner.get("type", "")))).get(inner_name) if inner else None
            if spec is not None:
                yield _widget(name, spec, place, False, name in linked)

    def _declared(self, kind: str) -> Iterator[tuple[str, Sequence[Any]]]:
        if kind not in self._catalogue:
            return
        entry = self._catalogue[kind]
        info = entry.resolved(self._listing)
        for group in ("required", "optional"):
            inputs = info["input"].get(group, {})
            for name in info["input_order"].get(group, inputs):
                if is_widget_input(inputs[name]):
                    yield name, inputs[name]


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


def is_widget_input(spec: Sequence[Any]) -> bool:
    """Whether an editor shows a value to set for [type, options], rather than a socket."""
    options = spec[1] if len(spec) > 1 else {}
    return (isinstance(spec[0], list) or spec[0] in (*KINDS, DYNAMIC_COMBO)) and not options.get("forceInput")


def _widget(name: str, spec: Sequence[Any], place: int | str, controlled: bool, linked: bool) -> Widget:
    options: Mapping[str, Any] = spec[1] if len(spec) > 1 and isinstance(spec[1], Mapping) else {}
    if isinstance(spec[0], list):
        return Widget(name, "COMBO", options, tuple(spec[0]), place, controlled, linked)
    if spec[0] == DYNAMIC_COMBO:
        keys = tuple(option["key"] for option in options.get("options") or ())
        return Widget(name, "COMBO", options, keys, place, controlled, linked)
    choices = tuple(options.get("options") or ()) if spec[0] == "COMBO" else ()
    return Widget(name, str(spec[0]), options, choices, place, controlled, linked)


def _is_controlled(name: str, options: Mapping[str, Any], values: Any, place: int) -> bool:
    told = options.get("control_after_generate") or name in SEED_NAMES
    if not isinstance(values, list):
        return bool(told)
    return bool(told) and place + 1 < len(values) and values[place + 1] in CONTROLS


def _linked(node: Mapping[str, Any]) -> set[str]:
    """Names of the widgets that a link feeds."""
    return {
        item["widget"]["name"] if isinstance(item.get("widget"), Mapping) and "name" in item["widget"] else item["name"]
        for item in node.get("inputs") or ()
        if isinstance(item, Mapping) and item.get("link") is not None and "name" in item
    }


def _promoted(node: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(id of the inner node, name) of each widget that an instance shows; id "-1": an input of the subgraph itself."""
    proxies = (node.get("properties") or {}).get("proxyWidgets")
    if isinstance(proxies, list) and proxies:
        return [(str(proxy[0]), str(proxy[1])) for proxy in proxies if isinstance(proxy, list) and len(proxy) >= 2]
    items = node.get("inputs") or ()
    return [("-1", str(item["name"])) for item in items if isinstance(item, Mapping) and item.get("widget")]


def _inside(definition: Mapping[str, Any], inner_id: str, name: str) -> tuple[Mapping[str, Any] | None, str]:
    """The node inside a subgraph whose widget is meant, and the widget's name there."""
    nodes = {str(node.get("id")): node for node in definition.get("nodes") or () if isinstance(node, Mapping)}
    if inner_id != "-1":
        return nodes.get(inner_id), name
    rim = next((item for item in definition.get("inputs") or () if item.get("name") == name), None)
    links = set((rim or {}).get("linkIds") or ())
    for node in nodes.values():
        for item in node.get("inputs") or ():
            if item.get("link") in links:
                return node, (item.get("widget") or item).get("name", item.get("name", name))
    return None, name
