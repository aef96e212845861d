"""The prompt as it is while it runs: what was submitted and what expansions have added. ComfyUI's DYNPROMPT."""

from __future__ import annotations

from typing import Any

from engine.graph.errors import MissingNode
from engine.graph.plan import Plan


class DynPrompt:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def get_node(self, node_id: str) -> dict[str, Any]:
        """The node as in a prompt. Raises MissingNode."""
        found = self._plan.written(node_id)
        if found is None:
            raise MissingNode(user="the prompt", node_id=node_id)
        return found

    def has_node(self, node_id: str) -> bool:
        return self._plan.written(node_id) is not None

    def get_real_node_id(self, node_id: str) -> str:
        """The submitted node that this one is part of."""
        return self._plan.node(node_id, user="the prompt").real

    def get_parent_node_id(self, node_id: str) -> str | None:
        parent = self._plan.node(node_id, user="the prompt").parent
        return parent.id if parent else None

    def get_display_node_id(self, node_id: str) -> str:
        return self._plan.node(node_id, user="the prompt").display

    def all_node_ids(self) -> set[str]:
        return self._plan.ids()

    def get_original_prompt(self) -> dict[str, Any]:
        return self._plan.submitted
