"""Node types and random graphs on which this studio and the official editor must make the same prompts."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

SOCKETS = ("A", "B", "*", "A,B")
GROW = {"template": {"input": {"required": {"image": ["IMAGE", {}]}}, "prefix": "image", "min": 1, "max": 5}}
TEXTS = {"template": {"input": {"required": {"text": ["STRING", {"default": "t"}]}}, "prefix": "text", "min": 2}}
INNER = {
    "options": [
        {"key": "a", "inputs": {"required": {"seed": ["INT", {"default": 5, "control_after_generate": True}]}}},
        {"key": "b", "inputs": {}},
    ]
}
MODE = {
    "options": [
        {
            "key": "size",
            "inputs": {"required": {"width": ["INT", {"default": 64}], "height": ["INT", {"default": 64}]}},
        },
        {
            "key": "scale",
            "inputs": {
                "required": {"by": ["FLOAT", {"default": 2.0}], "image": ["IMAGE", {}]},
                "optional": {"note": ["STRING", {"default": "n"}]},
            },
        },
        {"key": "nested", "inputs": {"required": {"inner": ["COMFY_DYNAMICCOMBO_V3", INNER]}}},
    ]
}


def _info(
    name: str,
    required: dict[str, Any],
    outputs: Sequence[str],
    optional: dict[str, Any] | None = None,
    shows: bool = False,
) -> dict[str, Any]:
    inputs = {"required": required, **({"optional": optional} if optional else {})}
    return {
        "input": inputs,
        "input_order": {group: list(some) for group, some in inputs.items()},
        "output": list(outputs),
        "output_is_list": [False] * len(outputs),
        "output_name": list(outputs),
        "name": name,
        "display_name": name,
        "description": "",
        "python_module": "nodes",
        "category": "toys",
        "output_node": shows,
    }


def _int(default: int, **options: Any) -> list[Any]:
    return ["INT", {"default": default, **options}]


def _string(default: str, **options: Any) -> list[Any]:
    return ["STRING", {"default": default, **options}]


ANY: list[Any] = ["*", {}]
A: list[Any] = ["A", {}]
B: list[Any] = ["B", {}]
SEED = _int(0, control_after_generate=True)
RANDOM = {  # what random graphs are made of
    info["name"]: info
    for info in (
        _info("SrcA", {"n": _int(1)}, ["A"]),
        _info("SrcAB", {"s": _string("s")}, ["A", "B"]),
        _info("SrcI", {"value": _int(1)}, ["INT"]),
        _info("SrcAny", {"x": _int(1)}, ["*"]),
        _info("Mix", {"a": A, "b": B, "k": _int(2), "w": _int(3)}, ["B", "A", "INT"]),
        _info("Two", {"b1": B, "a1": A, "a2": A}, ["A"], {"t": _string("t")}),
        _info("AB", {"x": ["A,B", {}], "y": A}, ["A,B", "A"]),
        _info("Any", {"x": ANY, "k": _int(2)}, ["*"]),
        _info("Seedy", {"a": A, "seed": SEED, "c": [["p", "q"], {}]}, ["A"]),
        _info("Out", {"x": ANY, "k": _int(2)}, [], shows=True),
    )
}
TOYS = {
    **RANDOM,
    "ToyGrow": _info(
        "ToyGrow", {"label": _string("x"), "images": ["COMFY_AUTOGROW_V3", GROW], "after": _int(3)}, ["IMAGE"]
    ),
    "ToyTexts": _info("ToyTexts", {"texts": ["COMFY_AUTOGROW_V3", TEXTS], "after": _int(3)}, ["STRING"]),
    "ToyCombo": _info(
        "ToyCombo",
        {"before": _int(1), "mode": ["COMFY_DYNAMICCOMBO_V3", MODE], "after": _int(3)},
        ["IMAGE"],
        shows=True,
    ),
    "ToyWidgets": _info(
        "ToyWidgets",
        {
            "seed": SEED,
            "noise_seed": _int(0),
            "choice": ["COMBO", {"options": ["a", "b", "c"], "control_after_generate": True}],
            "several": ["COMBO", {"options": ["a", "b", "c"], "multiselect": True, "default": ["a"]}],
            "colour": ["COLOR", {"default": "#ff0000"}],
            "hidden": _int(4, hidden=True),
            "no_socket": _string("so", socketless=True),
            "either": ["INT,FLOAT", {"default": 2, "widgetType": "INT"}],
            "box": ["BOUNDING_BOX", {"default": {"x": 1, "y": 2, "width": 3, "height": 4}}],
            "flag": ["BOOLEAN", {"default": True}],
            "text": _string("z", dynamicPrompts=True, multiline=True),
        },
        ["INT"],
        {"more": _string("o"), "forced": ["INT", {"forceInput": True}]},
        shows=True,
    ),
    "ToyUpload": _info(
        "ToyUpload",
        {"image": [["a.png", "b.png"], {"image_upload": True}], "channel": [["alpha", "red"], {}]},
        ["IMAGE"],
        {"more": _string("o")},
    ),
    "ToyStart": _info(
        "ToyStart",
        {
            "i": ["INT", {"min": 3}],
            "f": ["FLOAT", {}],
            "s": ["STRING", {}],
            "b": ["BOOLEAN", {}],
            "c": [["p", "q"], {}],
        },
        ["INT"],
        shows=True,
    ),
}


def random_workflow(seed: int) -> dict[str, Any]:
    """A workflow of the editor's format 0.4 with reroutes, primitives, muted and bypassed nodes, and up to two
    subgraphs, the second of which may hold the first."""
    return _Maker(random.Random(seed)).workflow()


class _Maker:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.ids = count(1)
        self.subgraphs: list[dict[str, Any]] = []
        self.promoted: dict[str, list[int | None]] = {}  # by subgraph: what each input's widget holds inside

    def workflow(self) -> dict[str, Any]:
        for place in range(self.rng.randint(0, 2)):
            self.subgraphs.append(self._subgraph(place))
        graph = _Graph()
        self._fill(graph, nested=False)
        graph.tell_outputs()
        found = {
            "last_node_id": graph.nodes[-1]["id"],
            "last_link_id": len(graph.links),
            "nodes": graph.nodes,
            "links": graph.links,
            "groups": [],
            "config": {},
            "extra": {},
            "version": 0.4,
            **({"definitions": {"subgraphs": self.subgraphs}} if self.subgraphs else {}),
        }
        return json.loads(json.dumps(found))

    def _fill(self, graph: _Graph, nested: bool) -> None:
        own = [one["id"] for one in self.subgraphs]
        for _ in range(self.rng.randint(3, 9)):
            kind = self.rng.choice([*RANDOM, "Reroute", "PrimitiveNode", "Reroute", *own, *own])
            mode = self.rng.choice((0, 0, 0, 0, 0, 2, 4, 4))
            # The editor puts the inside of a muted subgraph into the prompt all the same where it lies in another one.
            mode = 0 if kind in ("Reroute", "PrimitiveNode") or (nested and kind in own) else mode
            node = graph.add(next(self.ids), kind, mode)
            if kind == "Reroute":
                link = self._link(graph, node, "", "*")
                node["outputs"] = [{"name": "", "type": link[5] if link else "*", "links": None}]
            elif kind == "PrimitiveNode":
                node["outputs"] = [{"name": "INT", "type": "INT", "links": None, "widget": {"name": "k"}}]
                node["widgets_values"] = [self.rng.randint(100, 199), "fixed"]
                node["properties"] = {"Run widget replace on values": False}
            elif kind in RANDOM:
                self._plain(graph, node, RANDOM[kind])
            else:
                self._instance(graph, node, next(one for one in self.subgraphs if one["id"] == kind))

    def _plain(self, graph: _Graph, node: dict[str, Any], info: dict[str, Any]) -> None:
        for name, spec in info["input"]["required"].items():
            if spec[0] in SOCKETS:
                self._link(graph, node, name, spec[0])
        values: list[Any] = []
        for name, spec in _widgets_of(info):
            values.append(self._value(spec))
            if name == "seed":
                values.append("fixed")
            elif spec[0] == "INT":
                self._link(graph, node, name, "INT", widget=True)
        node["widgets_values"] = values
        node["outputs"] = [{"name": kind, "type": kind, "links": None} for kind in info["output"]]

    def _instance(self, graph: _Graph, node: dict[str, Any], definition: dict[str, Any]) -> None:
        values: list[Any] = []
        for item, inside in zip(definition["inputs"], self.promoted[definition["id"]], strict=True):
            self._link(graph, node, item["name"], item["type"], widget=inside is not None)
            if inside is not None:
                values.append(self.rng.choice((inside, self.rng.randint(200, 299))))
        node["widgets_values"] = values
        node["outputs"] = [{"name": out["name"], "type": out["type"], "links": None} for out in definition["outputs"]]

    def _value(self, spec: list[Any]) -> Any:
        if isinstance(spec[0], list):
            return self.rng.choice(spec[0])
        return self.rng.randint(0, 99) if spec[0] == "INT" else self.rng.choice(("x", "y", "zed"))

    def _link(
        self, graph: _Graph, node: dict[str, Any], name: str, kind: str, widget: bool = False
    ) -> list[Any] | None:
        """An input, linked or not to what fits. A widget has an input only while it is linked."""
        sources = [
            source for source in graph.sources if _fits(source[2], kind) and (widget or source[3] != "PrimitiveNode")
        ]
        linked = bool(sources) and self.rng.random() < (0.3 if widget else 0.75)
        if widget and not linked:
            return None
        item: dict[str, Any] = {
            "name": name,
            "type": kind,
            "link": None,
            **({"widget": {"name": name}} if widget else {}),
        }
        node["inputs"].append(item)
        return graph.link(self.rng.choice(sources), node, len(node["inputs"]) - 1) if linked else None

    def _subgraph(self, place: int) -> dict[str, Any]:
        graph = _Graph()
        self._fill(graph, nested=True)
        inputs: list[dict[str, Any]] = []
        inside: list[int | None] = []
        for node, slot, value in self._open_inputs(graph):
            kind = node["inputs"][slot]["type"]
            link = graph.link((-10, len(inputs), kind, ""), node, slot)
            name = f"in{len(inputs)}"
            inputs.append({"id": name, "name": name, "type": kind, "linkIds": [link[0]]})
            inside.append(value)
        sources = [source for source in graph.sources if source[3] != "PrimitiveNode"]
        outputs: list[dict[str, Any]] = []
        for source in self.rng.sample(sources, min(len(sources), self.rng.randint(1, 3))):
            link = graph.link_to_rim(source, len(outputs))
            name = f"out{len(outputs)}"
            outputs.append({"id": name, "name": name, "type": source[2], "linkIds": [link[0]]})
        graph.tell_outputs()
        identity = f"{place}aaaaaaa-bbbb-cccc-dddd-eeeeeeeeeee{place}"
        self.promoted[identity] = inside
        keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
        state = {"lastGroupId": 0, "lastNodeId": 99, "lastLinkId": 99, "lastRerouteId": 0}
        return {
            "id": identity,
            "version": 1,
            "state": state,
            "revision": 0,
            "config": {},
            "name": f"Subgraph {place}",
            "inputNode": {"id": -10, "bounding": [0, 0, 100, 100]},
            "outputNode": {"id": -20, "bounding": [900, 0, 100, 100]},
            "inputs": inputs,
            "outputs": outputs,
            "widgets": [],
            "nodes": graph.nodes,
            "links": [dict(zip(keys, link, strict=True)) for link in graph.links],
            "groups": [],
            "extra": {},
        }

    def _open_inputs(self, graph: _Graph) -> Iterator[tuple[dict[str, Any], int, int | None]]:
        """Inputs that come from the rim: (node, slot, value of the widget that it is)."""
        for node in list(graph.nodes):
            if node["type"] in ("Reroute", "PrimitiveNode"):
                continue
            for slot, item in enumerate(node["inputs"]):
                if item["link"] is None and "widget" not in item and self.rng.random() < 0.6:
                    yield node, slot, None
            for place, (name, _) in enumerate(_widgets_of(RANDOM.get(node["type"], {}))):
                linked = any(item["name"] == name for item in node["inputs"])
                if name in ("k", "w") and not linked and self.rng.random() < 0.4:
                    node["inputs"].append({"name": name, "type": "INT", "widget": {"name": name}, "link": None})
                    yield node, len(node["inputs"]) - 1, node["widgets_values"][place]


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.links: list[list[Any]] = []

    @property
    def sources(self) -> list[tuple[int, int, str, str]]:
        """(node id, slot, type, node type) of every output."""
        return [
            (node["id"], slot, out["type"], node["type"])
            for node in self.nodes
            for slot, out in enumerate(node["outputs"])
        ]

    def add(self, number: int, kind: str, mode: int) -> dict[str, Any]:
        node: dict[str, Any] = {
            "id": number,
            "type": kind,
            "pos": [240 * len(self.nodes), 0],
            "size": [200, 100],
            "flags": {},
            "order": len(self.nodes),
            "mode": mode,
            "inputs": [],
            "outputs": [],
            "properties": {},
        }
        self.nodes.append(node)
        return node

    def link(self, source: tuple[int, int, str, str], node: dict[str, Any], slot: int) -> list[Any]:
        row = [len(self.links) + 1, source[0], source[1], node["id"], slot, source[2]]
        self.links.append(row)
        node["inputs"][slot]["link"] = row[0]
        return row

    def link_to_rim(self, source: tuple[int, int, str, str], slot: int) -> list[Any]:
        row = [len(self.links) + 1, source[0], source[1], -20, slot, source[2]]
        self.links.append(row)
        return row

    def tell_outputs(self) -> None:
        nodes = {node["id"]: node for node in self.nodes}
        for number, origin, slot, *_ in self.links:
            if origin in nodes:
                out = nodes[origin]["outputs"][slot]
                out["links"] = [*(out["links"] or ()), number]


def _widgets_of(info: dict[str, Any]) -> list[tuple[str, list[Any]]]:
    groups = info.get("input", {})
    return [
        (name, spec)
        for group in ("required", "optional")
        for name, spec in groups.get(group, {}).items()
        if spec[0] not in SOCKETS
    ]


def _fits(one: str, other: str) -> bool:
    ones, others = set(one.split(",")), set(other.split(","))
    return "*" in ones | others or not ones.isdisjoint(others)
