"""`server`: `PromptServer.instance`, through which packs speak to the page and answer its requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.custom.host import context, host
from engine.custom.routes import Routes


class _Queue:
    """What of the queue packs look at."""

    def get_tasks_remaining(self) -> int:
        return 1 if context() else 0


class PromptServer:
    """One for the worker. `routes` and prompt handlers are taken, so that packs load; they are not served yet."""

    instance: PromptServer

    def __init__(self) -> None:
        self.routes = Routes()
        self.prompt_queue = _Queue()
        self.supports: list[str] = []
        self.on_prompt_handlers: list[Callable[[dict[str, Any]], dict[str, Any]]] = []

    @property
    def client_id(self) -> str | None:
        """The websocket client whose prompt runs now."""
        call = context()
        return (call.client_id or None) if call else None

    @property
    def last_node_id(self) -> str | None:
        call = context()
        return call.node_id if call else None

    @property
    def last_prompt_id(self) -> str | None:
        call = context()
        return call.job_id if call else None

    def send_sync(self, event: str, data: Any, sid: str | None = None) -> None:
        """A message to the websocket client `sid`; to all clients when it is None."""
        host().emit(str(event), data, sid)

    def send_progress_text(self, text: str, node_id: str, sid: str | None = None) -> None:
        host().emit("progress_text", {"node": str(node_id), "text": str(text)}, sid or self.client_id)

    def add_on_prompt_handler(self, handler: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Kept; not called yet (docs/custom-nodes.md)."""
        self.on_prompt_handlers.append(handler)


PromptServer.instance = PromptServer()
