"""GraphBuilder: what a node that expands into other nodes builds them with.

Node ids start with the id of the expanding node and the place in its list of calls, and count up from there, so that
the same expansion has the same ids every time.
"""

from __future__ import annotations

from typing import Any


class GraphBuilder:
    """`node = graph.node("KSampler", model=..., seed=...)`, `node.out(0)` as a link or result,
    `return {"result": (node.out(0),), "expand": graph.finalize()}`."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._count = 0
        self._nodes: dict[str, BuiltNode] = {}

    def node(self, class_type: str, id: str | None = None, **inputs: Any) -> BuiltNode:
        """Add a node. `id` (without the prefix) only where the count would not be stable; it may be used once."""
        self._count += 1
        name = f"{self._prefix}{id if id is not None else self._count}"
        if name in self._nodes:
            raise ValueError(f"node id {id!r} was used twice in one expansion")
        built = BuiltNode(name, class_type, inputs)
        self._nodes[name] = built
        return built

    def lookup_node(self, id: str) -> BuiltNode | None:
        return self._nodes.get(f"{self._prefix}{id}")

    def replace_node_output(self, node_id: str, index: int, new_value: Any) -> None:
        """Every input that is linked to that output gets `new_value` instead; None takes the input away."""
        for built in self._nodes.values():
            for name, value in list(built.inputs.items()):
                if value == [f"{self._prefix}{node_id}", index]:
                    built.set_input(name, new_value)

    def remove_node(self, id: str) -> None:
        del self._nodes[f"{self._prefix}{id}"]

    def finalize(self) -> dict[str, dict[str, Any]]:
        return {name: built.to_json() for name, built in self._nodes.items()}


class BuiltNode:
    def __init__(self, id: str, class_type: str, inputs: dict[str, Any]) -> None:
        self.id = id
        self.class_type = class_type
        self.inputs = inputs
        self.display_id: str | None = None  # the node that messages about this one should name

    def out(self, slot: int) -> list[Any]:
        return [self.id, slot]

    def set_input(self, name: str, value: Any) -> None:
        """Set or, with None, remove an input."""
        if value is None:
            self.inputs.pop(name, None)
        else:
            self.inputs[name] = value

    def get_input(self, name: str) -> Any:
        return self.inputs.get(name)

    def set_override_display_id(self, display_id: str) -> None:
        self.display_id = display_id

    def serialize(self) -> dict[str, Any]:
        return self.to_json()

    def to_json(self) -> dict[str, Any]:
        node: dict[str, Any] = {"class_type": self.class_type, "inputs": self.inputs}
        if self.display_id is not None:
            node["override_display_id"] = self.display_id
        return node
