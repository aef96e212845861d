"""The nodes of a running prompt: read from it when needed, each with the signature its results are known by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.graph.cache import Entry, signature
from engine.graph.calls import Call, Values
from engine.graph.errors import DependencyCycle, DuplicateNode, MissingNode, UnknownNodeType
from engine.graph.links import is_link, unwrapped
from engine.graph.registry import NodeType, Registry


@dataclass(slots=True, eq=False)
class Node:
    """One node of a run and how far it is."""

    id: str
    type: NodeType
    constants: dict[str, Any]
    links: dict[str, tuple[str, int]]  # input: (node id, slot)
    display: str  # the node of the submitted prompt that messages about this one are shown at
    real: str  # the node of the submitted prompt that this one is part of
    parent: Node | None = None  # whose expansion this one is part of
    lazy: frozenset[str] = frozenset()  # links that are followed only when the node asks for them
    signature: str = ""
    cacheable: bool = True
    entry: Entry | None = None  # its results, when they are there
    order: int = -1  # place in the queue; -1: not queued
    waiting: int = 0  # edges into it that are not done
    users: dict[str, Node] = field(default_factory=dict)  # who waits for it
    reads: list[Node] = field(default_factory=list)  # nodes whose results it may still read
    readers: int = 0  # queued nodes that may still read its result
    feeds_output: bool = False
    values: Values | None = None  # its inputs while it runs
    tasks: list[Any] | None = None  # results and asyncio tasks of an async node's calls
    expansion: list[Call] | None = None  # its calls while it waits for the nodes that they asked for

    @property
    def urgent(self) -> bool:
        return self.type.declaration.output_node or self.type.is_async

    @property
    def key(self) -> str:
        """What the cache knows it by; its id when no equal node can come again."""
        return self.signature if self.cacheable else self.id

    def about(self) -> dict[str, Any]:
        """The ids by which a message may name it."""
        return {
            "node_id": self.id,
            "display_node_id": self.display,
            "parent_node_id": self.parent.id if self.parent else None,
            "real_node_id": self.real,
        }


class Plan:
    """All nodes of a run by id. `fingerprint(node)` is asked for what its node says of its own changes; `salt` makes
    the results of this run others than those of runs with another."""

    def __init__(
        self, prompt: Mapping[str, Any], registry: Registry, fingerprint: Callable[[Node], Any], salt: str
    ) -> None:
        self.nodes: dict[str, Node] = {}
        self._prompt = prompt
        self._registry = registry
        self._fingerprint = fingerprint
        self._salt = salt
        self._expanded: dict[str, tuple[dict[str, Any], Node]] = {}  # node id: (as in a prompt, whose expansion)

    def __getitem__(self, node_id: str) -> Node:
        return self.nodes[node_id]

    @property
    def submitted(self) -> dict[str, Any]:
        return dict(self._prompt)

    def written(self, node_id: str) -> dict[str, Any] | None:
        """The node as it stands in the prompt or in an expansion."""
        return self._prompt.get(node_id) or self._expanded.get(node_id, (None,))[0]

    def ids(self) -> set[str]:
        return {*self._prompt, *self._expanded}

    def node(self, node_id: str, user: str) -> Node:
        """The node, read from the prompt or an expansion at its first use by `user`."""
        found = self.nodes.get(node_id)
        if found is None:
            found = self.nodes[node_id] = self._read(node_id, user)
        return found

    def expand(self, parent: Node, graph: Mapping[str, Any]) -> list[str]:
        """Add nodes that `parent` asked for. Returns their ids."""
        for node_id, written in graph.items():
            if node_id in self._expanded or node_id in self._prompt:
                raise DuplicateNode(parent=parent.id, node_id=node_id)
            self._expanded[node_id] = (dict(written), parent)
        return list(graph)

    def sign(self, roots: Sequence[str]) -> None:
        """Give these nodes and all they hang on their signatures, what is needed first."""
        stack = [self.node(root, user="the prompt") for root in roots]
        path: dict[str, None] = {}  # entered and not signed: the way to the node at hand
        while stack:
            node = stack[-1]
            if node.signature:
                stack.pop()
            elif node.id in path:
                self._sign(node)
                del path[node.id]
                stack.pop()
            else:
                path[node.id] = None
                for source_id, _ in node.links.values():
                    source = self.node(source_id, user=node.id)
                    if source.id in path:
                        cycle = list(path)[list(path).index(source.id) :]
                        raise DependencyCycle(path=" -> ".join([*cycle, source.id][-50:]))
                    if not source.signature:
                        stack.append(source)

    def _sign(self, node: Node) -> None:
        declared = node.type.declaration
        links = {name: (self.nodes[source].signature, slot) for name, (source, slot) in node.links.items()}
        own_id = declared.not_idempotent or "UNIQUE_ID" in declared.hidden
        salt = self._salt + (f"#{node.id}" if own_id else "")
        node.signature, node.cacheable = signature(node.type, node.constants, links, self._fingerprint(node), salt)
        node.cacheable &= all(self.nodes[source].cacheable for source, _ in node.links.values())

    def _read(self, node_id: str, user: str) -> Node:
        written, parent = self._expanded.get(node_id) or (self._prompt.get(node_id), None)
        if written is None:
            raise MissingNode(user=user, node_id=node_id)
        if written.get("class_type") not in self._registry:
            raise UnknownNodeType(node_id=node_id, class_type=written.get("class_type"))
        node_type = self._registry[written["class_type"]]
        display = written.get("override_display_id") or (parent.display if parent else node_id)
        node = Node(node_id, node_type, {}, {}, display, parent.real if parent else node_id, parent)
        for item, value in node_type.taken(written.get("inputs") or {}):
            if is_link(value) and not item.declared.extra.get("rawLink"):
                node.links[item.name] = (value[0], int(value[1]))
                if item.declared.lazy:
                    node.lazy |= {item.name}
            else:
                node.constants[item.name] = unwrapped(value)
        return node
