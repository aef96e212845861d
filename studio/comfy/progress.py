"""ComfyUI's `progress_state` messages, made of the changes that the worker tells: the state of every node that has
started, as text that is built once, and less often the more nodes there are. Clients that say so get the changes alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

FLAG = "easel_progress_changes"  # a client that announces it gets only what changed
INTERVAL = 0.05  # seconds between two full messages at least
SECONDS_PER_NODE = 40e-6  # what a node in a full message costs all who handle it


@dataclass
class ProgressState:
    """Of one running prompt."""

    prompt_id: str
    fresh: dict[str, Any] = field(default_factory=dict)  # changes that have not been sent
    _texts: dict[str, str] = field(default_factory=dict)  # `"id": {state}` as JSON text
    _stale: dict[str, Any] = field(default_factory=dict)  # states whose text is old or missing

    def change(self, nodes: dict[str, Any]) -> None:
        self.fresh.update(nodes)
        self._stale.update(nodes)

    @property
    def pace(self) -> float:
        """Seconds to wait until the next full message, so that a prompt's bytes grow with its nodes and not with their
        square."""
        return max(INTERVAL, SECONDS_PER_NODE * (len(self._texts) + len(self._stale)))

    def full(self) -> str:
        for node_id, state in self._stale.items():
            self._texts[node_id] = f"{json.dumps(node_id)}: {json.dumps(state)}"
        self._stale.clear()
        inside = f'"prompt_id": {json.dumps(self.prompt_id)}, "nodes": {{{", ".join(self._texts.values())}}}'
        return f'{{"type": "progress_state", "data": {{{inside}}}}}'

    def changes(self) -> str:
        data = {"prompt_id": self.prompt_id, "nodes": self.fresh, "changes_only": True}
        return json.dumps({"type": "progress_state", "data": data})
