"""What packs answer over HTTP: their aiohttp application in the worker, which only the studio's server can reach.

It listens on loopback and answers nobody who does not show the key that the server was told through the pipe. It has a
thread of its own, so that it answers while a node computes. It knows no packs.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from engine.graph.pack_http import KEY, ON_PROMPT, TAKEN

if TYPE_CHECKING:
    from aiohttp import web

    from engine.custom.surface.server import PromptServer

NOT_SERVED = "not served, its first part is the studio's own"


@dataclass(frozen=True)
class Served:
    """How the studio's server reaches it: the port on loopback, the key, what all its paths start with, and whether
    somebody wants to see prompts before they are judged."""

    port: int
    key: str
    prefixes: list[str]
    prompt_handlers: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Registered:
    """What a pack adds to the routes, the application and the prompt handlers while it is loaded."""

    def __init__(self, server: PromptServer) -> None:
        self._server = server
        self._routes, self._resources = len(server.known_routes), len(server.known_resources)
        self._handlers = len(server.on_prompt_handlers)

    def finish(self) -> tuple[list[str], list[str]]:
        """(what is served now, what is not and why). Routes go into the application here, each by itself."""
        problems = []
        for definition in self._server.known_routes[self._routes :]:
            path = str(getattr(definition, "path", "") or getattr(definition, "prefix", ""))
            try:
                if prefix_of(path) is None:
                    raise ValueError(NOT_SERVED)
                definition.register(self._server.app.router)
            except Exception as error:  # a path that can't be one, or that another pack has already
                problems.append(f"{path}: {error}")
        served = []
        for resource in self._server.known_resources[self._resources :]:
            if prefix_of(resource.canonical) is None:  # which a pack put into the application itself
                problems.append(f"{resource.canonical}: {NOT_SERVED}")
            else:
                served += [f"{method} {resource.canonical}" for method in _methods(resource)]
        handlers = len(self._server.on_prompt_handlers) - self._handlers
        return served + (["POST /prompt: is shown every prompt"] if handlers else []), problems

    def undo(self) -> None:
        """For a pack that failed: nothing of it is asked. Its routes were not yet in the application."""
        del self._server.on_prompt_handlers[self._handlers :]


def prefix_of(pattern: str) -> str | None:
    """What a path must start with to be this one's; None where that is the studio's own."""
    literal = pattern.partition("{")[0]
    first = literal.strip("/").partition("/")[0]
    return literal if first and first not in TAKEN else None


def serve(server: PromptServer) -> Served | None:
    """Start to answer; None when no pack wants to. To be called once, when all packs are loaded."""
    prefixes = sorted({prefix for one in server.known_resources if (prefix := prefix_of(one.canonical))})
    if not prefixes and not server.on_prompt_handlers:
        return None
    key = secrets.token_urlsafe(32)
    started = asyncio.run_coroutine_threadsafe(_listen(server, key), server.loop)
    return Served(started.result(timeout=30), key, prefixes, len(server.on_prompt_handlers))


def running_loop() -> asyncio.AbstractEventLoop:
    """An event loop in a thread of its own."""
    loop = asyncio.new_event_loop()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()

    threading.Thread(target=run, name="packs", daemon=True).start()
    return loop


async def _listen(server: PromptServer, key: str) -> int:
    from aiohttp import web

    async def on_prompt(request: web.Request) -> web.Response:
        body = await request.json()
        return web.json_response(await asyncio.to_thread(server.trigger_on_prompt, body))

    server.app.router.add_post(ON_PROMPT, on_prompt)
    server.app.middlewares.insert(0, _keyed(key))
    runner = web.AppRunner(server.app, access_log=None, handle_signals=False)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner.addresses[0][1]


def _keyed(key: str) -> Any:
    from aiohttp import web

    @web.middleware
    async def only_the_server(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if not hmac.compare_digest(request.headers.get(KEY, ""), key):
            raise web.HTTPForbidden(text="Only the studio may ask here.")
        return await handler(request)

    return only_the_server


def _methods(resource: Any) -> Iterator[str]:
    found = dict.fromkeys(route.method for route in resource)
    with suppress(KeyError):
        if "GET" in found:
            del found["HEAD"]  # aiohttp adds it by itself
    yield from found
