"""How far each node of a running prompt is: the `progress_state` messages, coalesced.

The message repeats every node that has started, so that sending it at every change costs the square of the nodes. Here
it leaves at most 20 times a second on average, less often the more nodes it holds; a small burst goes out at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

INTERVAL = 0.05  # seconds between two messages on average
BURST = 40  # messages that may leave at once, as in a short prompt
SECONDS_PER_NODE = 40e-6  # what a node in the message costs all who handle it


class ProgressBoard:
    """Keeps the state of nodes and tells `emit(data)` when it changed. `emit` may be called from a timer's thread."""

    def __init__(self, prompt_id: str, emit: Callable[[dict[str, Any]], None]) -> None:
        self._prompt_id = prompt_id
        self._emit = emit
        self._nodes: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._tokens = float(BURST)
        self._refilled = time.monotonic()
        self._timer: threading.Timer | None = None
        self._closed = False

    def start(self, about: dict[str, Any]) -> None:
        """`about`: the ids of the node that starts."""
        self._nodes[about["node_id"]] = {"value": 0.0, "max": 1.0, "state": "running", **about}
        self._changed()

    def update(self, node_id: str, value: float, maximum: float) -> None:
        self._nodes[node_id] = {**self._nodes[node_id], "value": value, "max": maximum}
        self._changed()

    def finish(self, node_id: str, state: str = "finished") -> None:
        node = self._nodes.get(node_id)
        if node is None or node["state"] == state:
            return
        value = node["max"] if state == "finished" else node["value"]
        self._nodes[node_id] = {**node, "state": state, "value": value}
        self._changed()

    def close(self) -> None:
        """Send what was held back. Nothing leaves after this."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
                self._send()
            self._closed = True

    def _changed(self) -> None:
        with self._lock:
            if self._timer is not None or self._closed:
                return
            now = time.monotonic()
            pace = max(INTERVAL, SECONDS_PER_NODE * len(self._nodes))
            self._tokens = min(BURST, self._tokens + (now - self._refilled) / pace)
            self._refilled = now
            cost = min(BURST, max(1.0, len(self._nodes) / 25))
            if self._tokens >= cost:
                self._tokens -= cost
                self._send()
                return
            self._timer = threading.Timer(pace, self._late)
            self._timer.daemon = True
            self._timer.start()

    def _late(self) -> None:
        with self._lock:
            if self._timer is None or self._closed:
                return
            self._timer = None
            self._tokens = 0.0
            self._refilled = time.monotonic()
            self._send()

    def _send(self) -> None:
        self._emit({"prompt_id": self._prompt_id, "nodes": dict(self._nodes)})
