"""How far each node of a running prompt is, told as changes: what has changed since the last word, 20 times a second on
average. A small burst goes out at once.

ComfyUI's `progress_state` repeats every node at every change, which costs the square of the nodes. Whoever speaks to
clients puts the changes together (studio/comfy/progress.py).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

INTERVAL = 0.05  # seconds between two words on average
BURST = 40  # words that may leave at once, as in a short prompt


class ProgressBoard:
    """Keeps the state of nodes and tells `emit({"prompt_id", "nodes": {id: state}})` what changed. `emit` may be called
    from a timer's thread."""

    def __init__(self, prompt_id: str, emit: Callable[[dict[str, Any]], None]) -> None:
        self._prompt_id = prompt_id
        self._emit = emit
        self._running: dict[str, dict[str, Any]] = {}
        self._changes: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._tokens = float(BURST)
        self._refilled = time.monotonic()
        self._timer: threading.Timer | None = None
        self._closed = False

    def start(self, about: dict[str, Any]) -> None:
        """`about`: the ids of the node that starts."""
        self._put({"value": 0.0, "max": 1.0, "state": "running", **about})

    def update(self, node_id: str, value: float, maximum: float) -> None:
        self._put({**self._running[node_id], "value": value, "max": maximum})

    def finish(self, node_id: str, state: str = "finished") -> None:
        node = self._running.pop(node_id, None)
        if node is not None:
            self._put({**node, "state": state, "value": node["max"] if state == "finished" else node["value"]})

    def close(self) -> None:
        """Send what was held back. Nothing leaves after this."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
                self._send()
            self._closed = True

    def _put(self, node: dict[str, Any]) -> None:
        with self._lock:
            node_id = node["node_id"]
            self._changes[node_id] = node
            if node["state"] == "running":
                self._running[node_id] = node
            if self._timer is not None or self._closed:
                return
            now = time.monotonic()
            self._tokens = min(BURST, self._tokens + (now - self._refilled) / INTERVAL)
            self._refilled = now
            if self._tokens >= 1:
                self._tokens -= 1
                self._send()
                return
            self._timer = threading.Timer(INTERVAL, self._late)
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
        changes, self._changes = self._changes, {}
        self._emit({"prompt_id": self._prompt_id, "nodes": changes})
