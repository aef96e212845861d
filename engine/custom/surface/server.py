"""`server`: `PromptServer.instance`, through which packs speak to the page and answer its requests."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from engine.custom.host import context, host
from engine.custom.serving import running_loop

if TYPE_CHECKING:
    from aiohttp import web

log = logging.getLogger(__name__)

Handler = Callable[[dict[str, Any]], dict[str, Any]]


class BinaryEventTypes(IntEnum):
    PREVIEW_IMAGE = 1
    UNENCODED_PREVIEW_IMAGE = 2
    TEXT = 3
    PREVIEW_IMAGE_WITH_METADATA = 4


class _Queue:
    """What of the queue packs look at."""

    def get_tasks_remaining(self) -> int:
        return 1 if context() else 0


class PromptServer:
    """One for the worker. Its routes are served behind the studio's login (engine/custom/serving.py)."""

    instance: PromptServer

    def __init__(self) -> None:
        self.prompt_queue = _Queue()
        self.supports = ["custom_nodes_from_web"]  # packs without it copy their scripts beside this file
        self.on_prompt_handlers: list[Handler] = []

    @cached_property
    def routes(self) -> web.RouteTableDef:
        """Raises ImportError where aiohttp is not installed, which is what it is made of."""
        return _aiohttp().RouteTableDef()

    @cached_property
    def app(self) -> web.Application:
        return _aiohttp().Application(client_max_size=0)  # the studio's server has limited what comes here

    @cached_property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Where handlers run: a thread of its own, started when somebody first asks for it."""
        return running_loop()

    @property
    def known_routes(self) -> list[Any]:
        return list(self.routes) if "routes" in self.__dict__ else []

    @property
    def known_resources(self) -> list[Any]:
        return list(self.app.router.resources()) if "app" in self.__dict__ else []

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

    def send_sync(self, event: str | int, data: Any, sid: str | None = None) -> None:
        """A message to the websocket client `sid`, to all clients when it is None; or a picture for the page of the
        prompt that runs: (format, picture, largest side)."""
        if not isinstance(event, int):
            host().emit(str(event), data, sid)
        elif event != BinaryEventTypes.UNENCODED_PREVIEW_IMAGE:
            raise ValueError(f"send_sync: of the binary events only UNENCODED_PREVIEW_IMAGE is offered, not {event}")
        elif call := context():
            call.preview(data[1])

    async def send(self, event: str | int, data: Any, sid: str | None = None) -> None:
        self.send_sync(event, data, sid)

    send_json = send

    def send_progress_text(self, text: str, node_id: str, sid: str | None = None) -> None:
        host().emit("progress_text", {"node": str(node_id), "text": str(text)}, sid or self.client_id)

    def add_on_prompt_handler(self, handler: Handler) -> None:
        """It is shown what was sent to POST /prompt before that is judged, and returns what is to be judged instead."""
        _ = self.app  # what shows it to the handler
        self.on_prompt_handlers.append(handler)

    def trigger_on_prompt(self, json_data: dict[str, Any]) -> dict[str, Any]:
        """What the handlers make of it, one after another. One that fails is left out, as in ComfyUI."""
        for handler in self.on_prompt_handlers:
            try:
                made = handler(json_data)
                if not isinstance(made, dict):
                    raise TypeError(f"it returned {type(made).__name__} instead of the prompt's dict")
                json_data = made
            except Exception:  # code of others
                log.warning("the prompt handler %r of a pack failed and is left out", handler, exc_info=True)
        return json_data

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"PromptServer.instance has no {name!r} here (docs/custom-nodes.md)")


def _aiohttp() -> Any:
    try:
        from aiohttp import web
    except ImportError as error:
        raise ImportError(
            "aiohttp is not installed, which HTTP routes and prompt handlers of packs are made of. Install it "
            f'and start the studio again: {sys.executable} -m pip install "aiohttp>=3.10,<4"'
        ) from error
    return web


PromptServer.instance = PromptServer()
