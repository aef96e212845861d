"""Which widgets the editor shows for a node, in its order, and where their values lie in a workflow.

A workflow keeps values by place and not by name. An input that is no socket takes one place, a few kinds take more. A
value that changes after a run is followed by how; a choice that brings inputs of its own is followed by theirs. An
instance of a subgraph has those of its definition's inputs that lead to a widget.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.graph.dynamic import AUTOGROW, DYNAMIC_COMBO, Spec, first_slots, specs_of

SEED_NAMES = ("seed", "noise_seed")
CONTROLS = ("fixed", "increment", "decrement", "randomize")
INPUT_NODE, OUTPUT_NODE = -10, -20  # what links at the rim of a subgraph name
OWN_INPUT = "-1"  # in place of an inner node: an input of the subgraph itself
# How many places a kind takes, and what it holds where nothing was saved. What is not here is a socket.
_PLACES: dict[str, tuple[int, Any]] = {
    "INT": (1, 0),
    "FLOAT": (1, 0),
    "STRING": (1, ""),
    "BOOLEAN": (1, False),
    "COMBO": (1, None),
    "TEXTAREA": (1, ""),
    "MARKDOWN": (1, ""),
    "COLOR": (1, "#000000"),
    "COLORS": (1, []),
    "CURVE": (1, None),
    "RANGE": (1, None),
    "CHART": (1, {}),
    "GALLERIA": (1, []),
    "PAINTER": (1, None),
    "COMPOSITOR": (1, {}),
    "VIDEO_EDIT": (1, None),
    "WEBCAM": (1, ""),
    "LIGHT_INFO_PREVIEW": (1, []),
    "BOUNDING_BOXES": (1, []),
    "BOUNDING_BOX": (5, None),  # the box, and its four numbers once more
    "AUDIO_RECORD": (2, ""),
    "IMAGECOMPARE": (0, ["", ""]),
}


@dataclass(frozen=True)
class Shown:
    """One widget. `place` is the index of its value; `controlled`: how it changes after a run lies in the next one."""

    name: str
    kind: str
    options: Mapping[str, Any]
    place: int
    saved: bool = True  # False for what only shows something
    may_change: bool = False  # the editor offers to change it after a run
    controlled: bool = False

    def value(self, values: Any) -> Any:
        """What `widgets_values` (by place, or by name as some packs write it) holds, else what the editor starts with;
        None for nothing."""
        if isinstance(values, Mapping):
            return values.get(self.name, self.initial)
        if isinstance(values, list) and self.saved and self.place < len(values):
            return values[self.place]
        return self.initial

    def written(self, value: Any) -> list[Any]:
        """What stands in `widgets_values` for it."""
        if not self.saved:
            return []
        found = [value, *[""] * (_PLACES[self.kind][0] - 1)]
        if self.kind == "BOUNDING_BOX" and isinstance(value, Mapping):
            found = [value, *(value.get(name, 0) for name in ("x", "y", "width", "height"))]
        if self.may_change:
            found += ["fixed", ""] if self.kind == "COMBO" else ["fixed"]
        return found

    @property
    def initial(self) -> Any:
        if "default" in self.options:
            return self.options["default"]
        if self.kind == "COMBO":
            return next(iter(self.options.get("options") or ()), None)
        return _PLACES[self.kind][1]


def shown_widgets(info: Mapping[str, Any], values: Any) -> Iterator[Shown]:
    """The widgets of a node with these `widgets_values`. `info`: its entry of /object_info."""
    row: Sequence[Any] = values if isinstance(values, list) else ()
    named: Mapping[str, Any] = values if isinstance(values, Mapping) else {}
    waiting = deque(_declared(info))
    place = 0
    while waiting:
        name, spec = waiting.popleft()
        if spec.kind == AUTOGROW:
            waiting.extendleft(reversed([(f"{name}.{slot}", inner) for slot, inner in first_slots(spec)]))
            continue
        options, choices = spec.options, spec.options.get("options") or ()
        if spec.kind == DYNAMIC_COMBO:
            options = {**options, "options": [choice["key"] for choice in choices]}
        elif isinstance(spec.kind, list | tuple):
            options = {**options, "options": list(spec.kind)}
        kind = widget_kind(spec)
        if kind is None:
            continue
        places = _PLACES[kind][0]
        may_change = _may_change(name, kind, options)
        controlled = may_change and place + 1 < len(row) and row[place + 1] in CONTROLS
        one = Shown(name, kind, options, place, places > 0, may_change, controlled)
        yield one
        place += places + controlled
        if controlled and kind == "COMBO" and place < len(row) and isinstance(row[place], str):
            place += 1  # a filter of its choices
        if spec.kind == DYNAMIC_COMBO:
            chosen = one.value(named or row)
            groups = (choice.get("inputs") or {} for choice in choices if choice["key"] == chosen)
            brought = [(f"{name}.{inner}", one) for group in groups for inner, one in specs_of(group).items()]
            waiting.extendleft(reversed(brought))


def widget_kind(spec: Spec) -> str | None:
    """The kind of widget that an input is shown as; None for a socket."""
    if spec.options.get("forceInput"):
        return None
    if isinstance(spec.kind, list | tuple) or spec.kind == DYNAMIC_COMBO:
        return "COMBO"
    kind = spec.options.get("widgetType") or spec.kind
    return kind if kind in _PLACES else None


def promoted(node: Mapping[str, Any], definition: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(id of the inner node or OWN_INPUT, name) of each widget that an instance of a subgraph shows."""
    proxies = (node.get("properties") or {}).get("proxyWidgets")
    if isinstance(proxies, list) and proxies:
        return [(str(proxy[0]), str(proxy[1])) for proxy in proxies if isinstance(proxy, list) and len(proxy) >= 2]
    own = {str(item.get("name")) for item in node.get("inputs") or () if item.get("widget")}
    inner = {
        item.get("link")
        for one in definition.get("nodes") or ()
        for item in one.get("inputs") or ()
        if item.get("widget") and item.get("link") is not None
    }
    rim: Sequence[Mapping[str, Any]] = definition.get("inputs") or ()
    names = [str(item["name"]) for item in rim]
    fed = [bool(inner.intersection(rim_links(definition, place))) for place in range(len(rim))]
    return [(OWN_INPUT, name) for name, leads in zip(names, fed, strict=True) if leads or name in own]


def rim_links(definition: Mapping[str, Any], place: int) -> list[Any]:
    """Ids of the links that go out of an input of a subgraph, in the order in which they were made."""
    item = definition["inputs"][place]
    if "linkIds" in item:
        return list(item["linkIds"] or ())
    keys = ("id", "origin_id", "origin_slot")
    rows = [link if isinstance(link, Mapping) else dict(zip(keys, link, strict=False)) for link in definition["links"]]
    return [row["id"] for row in rows if row["origin_id"] == INPUT_NODE and row["origin_slot"] == place]


def _declared(info: Mapping[str, Any]) -> Iterator[tuple[str, Spec]]:
    for group in ("required", "optional"):
        inputs = info["input"].get(group, {})
        for name in info["input_order"].get(group, inputs):
            yield name, Spec.of(inputs[name], group == "required")


def _may_change(name: str, kind: str, options: Mapping[str, Any]) -> bool:
    """Whether the editor may change it after a run."""
    if kind not in ("INT", "FLOAT", "COMBO"):
        return False
    return bool(options.get("control_after_generate")) or (kind == "INT" and name.rpartition(".")[2] in SEED_NAMES)
