"""What a group node of older editors shows outside: its values, its inputs and its outputs, in order and by name.

`extra.groupNodes[NAME]` holds the nodes of a group and its links [from, slot, to, slot, ...], by places in that list. A
group shows every value of its nodes, every input that nothing inside feeds, and every output that goes nowhere inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.errors import GraphError
from engine.graph.catalogue import Catalogue
from engine.graph.dynamic import Spec, specs_of
from engine.graph.widget_places import SEED_NAMES, widget_kind

PREFIXES = ("workflow>", "workflow/")  # of a node's type, before the name of its group
MOST_GROUPS = 2000  # uses of groups in one workflow, those inside others included
BUTTON = "upload"
_UPLOADS = ("image_upload", "animated_image_upload", "video_upload")
_OF_THE_EDITOR = ("PrimitiveNode", "Reroute", "Note", "MarkdownNote")


class TooManyGroups(GraphError):
    en = "The workflow has more than {most} group nodes, or one that holds itself. Ungroup some in the editor."
    zh = "该工作流包含超过 {most} 个组节点，或某个组节点包含自身。请在编辑器中取消部分组合。"


@dataclass(frozen=True)
class Exposed:
    """An input of the group: a value (`widget`) or a socket of one of its nodes, where its name is `inner`."""

    name: str
    node: int
    inner: str
    spec: Spec
    widget: bool = False


@dataclass
class Group:
    name: str
    nodes: list[dict[str, Any]]
    links: list[list[Any]]
    infos: list[Mapping[str, Any] | None]
    shown: list[Exposed] = field(default_factory=list)
    outputs: list[tuple[int, int, str, str]] = field(default_factory=list)  # node, slot, name, type

    @property
    def info(self) -> dict[str, Any]:
        """As an entry of /object_info, for the places of its values and for a group around it."""
        required = {one.name: [one.spec.kind, dict(one.spec.options)] for one in self.shown}
        return {
            "input": {"required": required},
            "input_order": {"required": list(required)},
            "output": [kind for *_, kind in self.outputs],
            "output_name": [name for _, _, name, _ in self.outputs],
        }


class Groups:
    """The groups of a workflow, each read when it is first met."""

    def __init__(self, written: Mapping[str, Any], catalogue: Catalogue) -> None:
        self._written = written
        self._catalogue = catalogue
        self._read: dict[str, Group] = {}
        self._reading: set[str] = set()

    def of(self, kind: Any) -> Group | None:
        """The group that a node type is; None for other types."""
        name = group_name(kind)
        if name is None or name not in self._written:
            return None
        if name in self._reading:
            raise TooManyGroups(most=MOST_GROUPS)
        if name not in self._read:
            self._reading.add(name)
            self._read[name] = self._group(name, self._written[name])
            self._reading.remove(name)
        return self._read[name]

    def _group(self, name: str, written: Mapping[str, Any]) -> Group:
        nodes = [dict(node) for node in written.get("nodes") or ()]
        links = [list(link) for link in written.get("links") or () if link[0] is not None]
        group = Group(name, nodes, links, [])
        external = {(int(row[0]), int(row[1])): row[2] for row in written.get("external") or () if len(row) > 2}
        for place in range(len(nodes)):
            group.infos.append(self._info(group, place, external, written.get("links") or ()))
        _Naming(group, written.get("config") or {}).inputs()
        _Naming(group, written.get("config") or {}).outputs(external)
        return group

    def _info(
        self, group: Group, place: int, external: Mapping[tuple[int, int], Any], links: Sequence[Any]
    ) -> Mapping[str, Any] | None:
        """What a node of the group takes and gives; None for one that shows nothing outside."""
        node = group.nodes[place]
        kind = node["type"]
        if kind in self._catalogue:
            return self._catalogue[kind].info
        if (inner := self.of(kind)) is not None:
            return inner.info
        into = next((link for link in group.links if link[2] == place), None)
        out = next((link for link in group.links if link[0] == place), None)
        if kind == "PrimitiveNode":
            if out is None:
                return None
            spec = self._target(group, out)
            named = [spec.kind, {**spec.options, "control_after_generate": True}]
            return _one_value("value", named, str(out[5] if len(out) > 5 else "*"))
        if kind == "Reroute":
            if into and out and (place, 0) not in external:
                return None
            outside = next((link[5] for link in links if link[2] == place and len(link) > 5), None)
            named = str(self._reroute_type(group, into, out) or outside or external.get((place, 0)) or "*")
            return _one_value(named, [named, {"forceInput": True}], named)
        return None

    def _target(self, group: Group, link: Sequence[Any]) -> Spec:
        """What a primitive's value goes into."""
        node = group.nodes[int(link[2])]
        item = (node.get("inputs") or [])[int(link[3])]
        known = specs_of(self._catalogue[node["type"]].info["input"]) if node["type"] in self._catalogue else {}
        return known.get(item["name"]) or Spec(link[5] if len(link) > 5 else "*", {}, True)

    def _reroute_type(self, group: Group, into: Sequence[Any] | None, out: Sequence[Any] | None) -> Any:
        if out is not None:
            return (group.nodes[int(out[2])].get("inputs") or [])[int(out[3])].get("type")
        if into is not None:
            return (group.nodes[int(into[0])].get("outputs") or [])[int(into[1])].get("type")
        return None


class _Naming:
    """Which inputs and outputs a group has, in the editor's order and by its names: those that occur once keep theirs,
    others have the title of their node before it."""

    def __init__(self, group: Group, config: Mapping[str, Any]) -> None:
        self.group = group
        self.config = config
        self.seen: dict[str, int] = {}
        self.fed = {(int(link[2]), int(link[3])) for link in group.links}

    def inputs(self) -> None:
        late: list[tuple[int, str, Spec]] = []  # values that had been made inputs stand at the end
        for place, (node, info) in enumerate(zip(self.group.nodes, self.group.infos, strict=True)):
            items = [item.get("name") for item in node.get("inputs") or ()]
            made = {
                item["name"]: slot
                for slot, item in enumerate(node.get("inputs") or ())
                if (item.get("widget") or {}).get("name") == item.get("name")
            }
            sockets: list[tuple[str, Spec]] = []
            converted: list[tuple[int, str, Spec]] = []
            for name, spec in _ordered(info):
                if widget_kind(spec) is None:
                    sockets.append((name, spec))
                elif name in made:
                    converted.append((made[name], name, spec))
                else:
                    self._add(place, name, spec, widget=True)
            for number, (name, spec) in enumerate(sockets):
                slot = items.index(name) if name in items else number
                if (place, slot) not in self.fed:
                    self._add(place, name, spec, widget=False)
            late += [(place, name, spec) for slot, name, spec in sorted(converted) if (place, slot) not in self.fed]
        for place, name, spec in late:
            self._add(place, name, spec, widget=True)

    def _add(self, place: int, inner: str, spec: Spec, widget: bool) -> None:
        node = self.group.nodes[place]
        custom = _at(_at(self.config, place).get("input"), inner)
        item = next((item for item in node.get("inputs") or () if item.get("name") == inner), {})
        name = key = str(custom.get("name") or item.get("label") or inner)
        titled = node["type"] == "PrimitiveNode" and node.get("title")
        if titled or name in self.seen:
            before = f"{node.get('title') or node['type']} "
            name = key = f"{before}{inner}"
            if name in self.seen:
                name = f"{before}{self.seen[name]} {inner}"
        self.seen[key] = self.seen.get(key, 1) + 1
        if inner in SEED_NAMES:
            spec = Spec(spec.kind, {**spec.options, "control_after_generate": True}, spec.required)
        if widget or custom.get("visible") is not False:
            self.group.shown.append(Exposed(name, place, inner, spec, widget))

    def outputs(self, external: Mapping[tuple[int, int], Any]) -> None:
        used = {(int(link[0]), int(link[1])) for link in self.group.links}
        for place, (node, info) in enumerate(zip(self.group.nodes, self.group.infos, strict=True)):
            kinds = info["output"] if info else ()
            for slot, kind in enumerate(kinds):
                custom = _at(_at(self.config, place).get("output"), slot)
                hidden = (place, slot) in used and not external.get((place, slot))
                visible = custom.get("visible")
                if visible is False or (visible is None and hidden):
                    continue
                names = (info or {})["output_name"]
                name = str(custom.get("name") or (names[slot] if slot < len(names) else kind))
                if name in self.seen:
                    before = f"{node.get('title') or node['type']} "
                    name = f"{before}{name}" if f"{before}{name}" not in self.seen else f"{before}{place} {name}"
                self.seen[name] = 1
                self.group.outputs.append((place, slot, name, str(kind)))


def is_known(group: Mapping[str, Any], groups: Mapping[str, Any], catalogue: Catalogue) -> bool:
    """Whether all its node types are known; a group in a group counts as known, and is looked at by itself."""
    kinds = (node["type"] for node in group.get("nodes") or ())
    return all(kind in catalogue or kind in _OF_THE_EDITOR or group_name(kind) in groups for kind in kinds)


def group_name(kind: Any) -> str | None:
    return next((str(kind).removeprefix(prefix) for prefix in PREFIXES if str(kind).startswith(prefix)), None)


def _ordered(info: Mapping[str, Any] | None) -> Iterator[tuple[str, Spec]]:
    """The inputs of a node as a group counts them: a button to upload, which a picture has, stands before what is
    optional and takes a place among the values."""
    specs = specs_of(info["input"]) if info else {}
    button = any(spec.options.get(kind) for spec in specs.values() for kind in _UPLOADS)
    yield from ((name, spec) for name, spec in specs.items() if spec.required)
    if button and BUTTON not in specs:
        yield BUTTON, Spec("STRING", {"default": "image"}, True)
    yield from ((name, spec) for name, spec in specs.items() if not spec.required)


def _one_value(name: str, spec: list[Any], output: str) -> dict[str, Any]:
    return {"input": {"required": {name: spec}}, "input_order": {}, "output": [output], "output_name": []}


def _at(table: Any, key: Any) -> Mapping[str, Any]:
    """What a table of JSON has under a number or a name; nothing where it has nothing."""
    found = (table or {}).get(str(key), (table or {}).get(key)) if isinstance(table, Mapping) else None
    return found if isinstance(found, Mapping) else {}
