"""`comfy_execution.graph_utils`: building what a node expands into."""

from __future__ import annotations

from typing import Any

from engine.custom.host import context
from engine.graph.builder import BuiltNode as Node
from engine.graph.builder import GraphBuilder as _GraphBuilder
from engine.graph.links import is_link
from engine.graph.node import Blocker as ExecutionBlocker

__all__ = ["ExecutionBlocker", "GraphBuilder", "Node", "add_graph_prefix", "is_link"]


class GraphBuilder(_GraphBuilder):
    """Without a prefix, the ids follow from the node that runs: the same expansion has the same ids every time."""

    def __init__(self, prefix: str | None = None) -> None:
        call = context()
        super().__init__(prefix if prefix is not None else call.graph_prefix() if call else "")

    @classmethod
    def alloc_prefix(
        cls, root: str | None = None, call_index: int | None = None, graph_index: int | None = None
    ) -> str:
        if root is None or call_index is None or graph_index is None:
            call = context()
            return call.graph_prefix() if call else ""
        return f"{root}.{call_index}.{graph_index}."


def add_graph_prefix(graph: dict[str, Any], outputs: Any, prefix: str) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """The graph with ids of its own: every id, and every link to one, starts with the prefix."""

    def renamed(value: Any) -> Any:
        return [prefix + value[0], value[1]] if is_link(value) and value[0] in graph else value

    named = {
        prefix + node_id: {**node, "inputs": {name: renamed(value) for name, value in node.get("inputs", {}).items()}}
        for node_id, node in graph.items()
    }
    return named, tuple(renamed(list(one) if isinstance(one, tuple) else one) for one in outputs)
