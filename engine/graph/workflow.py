"""The editor's workflow JSON becomes an API prompt, as the editor itself would send it.

Formats 0.4 and 1.0: reroutes, primitives, muted and bypassed nodes, converted widgets, subgraphs (nested, with promoted
widgets), group nodes. Nodes of a subgraph get ids like "12:3": node 3 inside node 12. It needs the catalogue, because
a workflow holds widget values by place and not by name.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.errors import GraphError
from engine.graph.catalogue import Catalogue
from engine.graph.group_nodes import without_group_nodes
from engine.graph.links import unwrapped
from engine.graph.widget_places import INPUT_NODE, OUTPUT_NODE, OWN_INPUT, promoted, rim_links, shown_widgets

MUTED, BYPASSED = 2, 4  # node modes
NOT_RUN = {"Note", "MarkdownNote", "PrimitiveNode", "Reroute"}  # the editor's own nodes
DEEPEST = 50  # subgraphs inside one another
MOST_INSIDE = 200_000  # nodes in all, counted once for each instance of a subgraph that they are in


class NotAWorkflow(GraphError):
    en = "This is neither a workflow of the editor nor a prompt: {reason}."
    zh = "这既不是编辑器的工作流，也不是提示图：{reason_zh}。"


class UnsupportedWorkflow(GraphError):
    en = "The workflow uses {what}, which can't be converted here. Open it in the editor and save it again."
    zh = "该工作流使用了{what_zh}，此处无法转换。请在编辑器中打开并重新保存。"


def is_prompt(document: Any) -> bool:
    """An API prompt: nodes with a class_type by id."""
    return (
        isinstance(document, dict)
        and bool(document)
        and all(isinstance(node, dict) and "class_type" in node for node in document.values())
    )


def to_prompt(document: Any, catalogue: Catalogue, rng: random.Random | None = None) -> dict[str, Any]:
    """The API prompt of a workflow; a prompt is returned as it is. `rng` chooses among `{a|b}` in texts.
    Raises NotAWorkflow or UnsupportedWorkflow; node types that are not known are left for validation to refuse."""
    if is_prompt(document):
        return document
    if not isinstance(document, dict) or not isinstance(document.get("nodes"), list):
        raise NotAWorkflow(reason="it has no list of nodes", reason_zh="其中没有节点列表")
    try:
        plain = without_group_nodes(document, catalogue)
        return _Conversion(plain, catalogue, rng or random.Random()).prompt()
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        odd = f"{type(error).__name__}: {error}"
        raise NotAWorkflow(reason=f"its parts do not fit ({odd})", reason_zh=f"内容不一致（{odd}）") from error


@dataclass(frozen=True)
class _Link:
    origin: Any  # node id
    slot: int
    type: str


@dataclass(frozen=True)
class _Value:
    """What an input gets instead of a link."""

    value: Any


@dataclass(eq=False)
class _Scope:
    """The graph of the workflow, or of one instance of a subgraph."""

    prefix: str
    nodes: dict[str, dict[str, Any]]
    links: dict[Any, _Link]
    outputs: dict[int, _Link]  # what arrives at the rim
    depth: int = 0
    definition: Mapping[str, Any] | None = None
    parent: _Scope | None = None
    instance: Mapping[str, Any] | None = None  # the node in `parent` that this is the inside of
    promoted: dict[tuple[str, str], Any] = field(default_factory=dict)  # (node id, widget): value set at the instance


class _Conversion:
    def __init__(self, document: Mapping[str, Any], catalogue: Catalogue, rng: random.Random) -> None:
        self.catalogue = catalogue
        self.rng = rng
        subgraphs = (document.get("definitions") or {}).get("subgraphs") or []
        self.definitions: dict[str, Mapping[str, Any]] = {str(one["id"]): one for one in subgraphs}
        self.root = _scope("", document)
        self.nodes = 0  # that were met in subgraphs
        self.inner: dict[str, _Scope] = {}  # by prefix
        self.held: dict[tuple[str, int], _Value | None] = {}  # by prefix and slot: values of instances' own inputs

    def prompt(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        stack = [self.root]
        while stack:
            scope = stack.pop()
            for node in sorted(scope.nodes.values(), key=lambda node: node.get("order") or 0):
                if node.get("mode") in (MUTED, BYPASSED) or node["type"] in NOT_RUN:
                    continue
                if node["type"] in self.definitions:
                    stack.append(self._inside(scope, node))
                else:
                    found[f"{scope.prefix}{node['id']}"] = self._node(scope, node)
        return found

    def _node(self, scope: _Scope, node: Mapping[str, Any]) -> dict[str, Any]:
        inputs = dict(self._widgets(scope, node))
        for item in node.get("inputs") or ():
            link = item.get("link")
            if link is None:
                continue
            source = self._source(scope, scope.links.get(link), item.get("type"))
            if isinstance(source, _Value):
                inputs[item["name"]] = _wrapped(source.value)
            elif source is not None:
                inputs[item["name"]] = list(source)
        return {"class_type": node["type"], "inputs": inputs, "_meta": self._meta(node)}

    def _meta(self, node: Mapping[str, Any]) -> dict[str, Any]:
        """Title, and of which pack in which version the node was."""
        class_type = node["type"]
        shown = self.catalogue[class_type].info.get("display_name") if class_type in self.catalogue else ""
        properties = node.get("properties") or {}
        pack = {name: properties[name] for name in ("cnr_id", "aux_id", "ver") if properties.get(name)}
        return {"title": node.get("title") or shown or class_type, **pack}

    def _widgets(self, scope: _Scope, node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """The node's widgets by name. One whose value was not saved has what the editor starts with."""
        if node["type"] not in self.catalogue:
            return
        values = node.get("widgets_values")
        for widget in shown_widgets(self.catalogue[node["type"]].info, values):
            value = scope.promoted.get((str(node["id"]), widget.name), widget.value(values))
            if isinstance(value, str) and widget.options.get("dynamicPrompts"):
                value = _chosen(value, self.rng)
            if value is not None:
                yield widget.name, _wrapped(value)

    def _source(self, scope: _Scope, link: _Link | None, wanted: Any) -> tuple[str, int] | _Value | None:
        """Where a link really comes from: through reroutes, bypassed nodes and the rims of subgraphs. `wanted`: the
        type of the input that it goes into."""
        seen: set[tuple[str, Any, int]] = set()
        promoted_value: _Value | None = None  # of the outermost instance that has one
        while link is not None:
            place = (scope.prefix, link.origin, link.slot)
            if place in seen:
                return None
            seen.add(place)
            if link.origin == INPUT_NODE:
                assert scope.parent
                assert scope.instance
                item = _instance_input(scope, link.slot)
                place = (scope.prefix, link.slot)
                if place not in self.held:
                    self.held[place] = self._promoted_value(scope, link.slot)
                promoted_value = self.held[place] or promoted_value
                if item is None or item.get("link") is None:
                    return promoted_value
                scope, link = scope.parent, scope.parent.links.get(item["link"])
                continue
            node = scope.nodes.get(str(link.origin))
            if node is None or node.get("mode") == MUTED:
                return None
            if node.get("mode") == BYPASSED:
                item = _passed_through(node, link, wanted)
                link, wanted = (scope.links.get(item.get("link")), item.get("type")) if item else (None, wanted)
            elif node["type"] == "Reroute":
                link = scope.links.get((node.get("inputs") or [{}])[0].get("link"))
            elif node["type"] == "PrimitiveNode":
                return _Value((node.get("widgets_values") or [None])[0])
            elif node["type"] in self.definitions:
                scope = self._inside(scope, node)
                link = scope.outputs.get(link.slot)
            else:
                return f"{scope.prefix}{node['id']}", link.slot
        return None

    def _inside(self, scope: _Scope, node: Mapping[str, Any]) -> _Scope:
        prefix = f"{scope.prefix}{node['id']}:"
        if prefix not in self.inner:
            if scope.depth >= DEEPEST:
                words = {"what": "more than {} subgraphs inside one another", "what_zh": "超过 {} 层嵌套的子图"}
                raise UnsupportedWorkflow(**{name: text.format(DEEPEST) for name, text in words.items()})
            definition = self.definitions[node["type"]]
            self.nodes += len(definition.get("nodes") or ())
            if self.nodes > MOST_INSIDE:
                words = {"what": "subgraphs with more than {} nodes in all", "what_zh": "节点总数超过 {} 的子图"}
                raise UnsupportedWorkflow(**{name: text.format(MOST_INSIDE) for name, text in words.items()})
            made = _scope(prefix, definition)
            made.definition, made.parent, made.instance, made.depth = definition, scope, node, scope.depth + 1
            made.promoted = self._promoted(scope, node)
            self.inner[prefix] = made
        return self.inner[prefix]

    def _promoted(self, scope: _Scope, node: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
        """Values that an instance sets for widgets inside it, by (node id, widget); those of its own inputs by
        (OWN_INPUT, input). A list that does not fit its proxies is left alone: what is inside counts."""
        shown, values = promoted(node, self.definitions[node["type"]]), node.get("widgets_values") or []
        proxied = bool(shown) and (node.get("properties") or {}).get("proxyWidgets")
        if not isinstance(values, list) or (proxied and len(shown) != len(values)):
            return {}
        found = dict(zip(shown, values, strict=False))
        own = str(node["id"])
        for (inner, name), value in scope.promoted.items():  # promoted once more, from this instance to the one around
            if inner == own:
                found[(OWN_INPUT, name)] = value
        return found

    def _promoted_value(self, scope: _Scope, slot: int) -> _Value | None:
        """What an instance holds for an input of its own: what was set there, else what the first widget inside has."""
        assert scope.definition
        name = scope.definition["inputs"][slot]["name"]
        if (OWN_INPUT, name) in scope.promoted:
            return _Value(scope.promoted[(OWN_INPUT, name)])
        for target in _targets(scope.definition, slot):
            inner, item = target
            widget = (item.get("widget") or {}).get("name")
            if widget is None:
                continue
            if inner["type"] in self.definitions:
                deeper, names = self._inside(scope, inner), self.definitions[inner["type"]]["inputs"]
                place = next((p for p, one in enumerate(names) if one["name"] == item["name"]), None)
                return None if place is None else self._promoted_value(deeper, place)
            found = dict(self._widgets(scope, inner)).get(widget)
            return None if found is None else _Value(unwrapped(found))
        return None


def _scope(prefix: str, graph: Mapping[str, Any]) -> _Scope:
    links: dict[Any, _Link] = {}
    outputs: dict[int, _Link] = {}
    for row in graph.get("links") or ():
        if isinstance(row, Mapping):
            row = [row[k] for k in ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")]
        number, origin, slot, target, target_slot, kind = row[:6]
        links[number] = _Link(origin, int(slot), str(kind))
        if target == OUTPUT_NODE:
            outputs.setdefault(int(target_slot), links[number])
    nodes = {str(node["id"]): node for node in graph.get("nodes") or ()}
    return _Scope(prefix, nodes, links, outputs)


def _targets(definition: Mapping[str, Any], slot: int) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """(node, input) of all that an input of a subgraph goes into, in the order in which they were linked."""
    numbers = rim_links(definition, slot)
    taken = {item.get("link"): (node, item) for node in definition["nodes"] for item in node.get("inputs") or ()}
    return (taken[number] for number in numbers if number in taken)


def _instance_input(scope: _Scope, slot: int) -> Mapping[str, Any] | None:
    """The instance's own input for an input of its definition: by name, for their order may differ."""
    assert scope.instance
    assert scope.definition
    name = scope.definition["inputs"][slot]["name"]
    inputs: Sequence[Mapping[str, Any]] = scope.instance.get("inputs") or ()
    return next((item for item in inputs if item["name"] == name), None)


def _passed_through(node: Mapping[str, Any], link: _Link, wanted: Any) -> Mapping[str, Any] | None:
    """The input that a bypassed node hands on at an output. The editor's rule: the input of the same place where it
    fits the output or anything is wanted, else the first of the very type that is wanted, else what fits the output."""
    inputs: Sequence[Mapping[str, Any]] = node.get("inputs") or ()
    if not inputs:
        return None
    here = inputs[link.slot] if link.slot < len(inputs) else inputs[0]
    if wanted in (None, "*") or _same_type(here.get("type"), link.type):
        return here
    same = next((item for item in inputs if item.get("type") == wanted), None)
    return same or next((item for item in inputs if _same_type(item.get("type"), link.type)), None)


def _same_type(one: Any, other: Any) -> bool:
    """Types may be several, with commas."""
    ones, others = ({part.strip().upper() for part in str(kind).split(",")} for kind in (one, other))
    return "*" in ones | others or not ones.isdisjoint(others)


def _wrapped(value: Any) -> Any:
    return {"__value__": value} if isinstance(value, list) else value


def _chosen(text: str, rng: random.Random) -> str:
    """The editor's dynamic prompts: comments go, and one of each `{a|b}` stays. `\\{` is an ordinary brace."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
    group = re.compile(r"(?<!\\)\{([^{}]*)(?<!\\)\}")
    for _ in range(DEEPEST):
        text, count = group.subn(lambda match: rng.choice(match[1].split("|")), text)
        if not count:
            break
    return re.sub(r"\\([{}|])", r"\1", text)
