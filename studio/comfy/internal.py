"""What only the studio's own page and editor ask: folders, files, and the worker's log, which is for the owner."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from engine.workspace import is_text
from studio.app import App
from studio.comfy.events import Sockets
from studio.comfy.models import folder_paths
from studio.comfy.requests import empty, json_object
from studio.gate import owner_only

TERMINAL = {"cols": 120, "rows": 40}
FOLLOW_SECONDS = 0.5


def routes(app: App, sockets: Sockets) -> list[BaseRoute]:
    workspace = app.workspace
    follower = LogFollower(app, sockets)

    def paths(request: Request) -> Response:
        return JSONResponse(folder_paths(workspace))

    def files(request: Request) -> Response:
        folders = {"output": workspace.output, "input": workspace.input, "temp": workspace.temp}
        folder = folders.get(request.path_params["kind"])
        if folder is None:
            return JSONResponse({"error": "Invalid directory type"}, 400)
        return JSONResponse(_newest_first(folder))

    def logs(request: Request) -> Response:
        owner_only(request)
        return JSONResponse(app.supervisor.log.tail())

    def logs_raw(request: Request) -> Response:
        owner_only(request)
        return JSONResponse({"entries": entries(app.supervisor.log.tail()), "size": TERMINAL})

    async def logs_subscribe(request: Request) -> Response:
        owner_only(request)
        body = await json_object(request)
        client_id = body.get("clientId")
        if not isinstance(client_id, str) or not client_id:
            return JSONResponse({"error": "clientId must name the websocket that is to hear the log"}, 400)
        follower.want(client_id, body.get("enabled") is True)
        return empty()

    return [
        Route("/internal/folder_paths", paths),
        Route("/internal/files/{kind}", files),
        Route("/internal/logs", logs),
        Route("/internal/logs/raw", logs_raw),
        Route("/internal/logs/subscribe", logs_subscribe, methods=["PATCH"]),
    ]


def entries(text: str) -> list[dict[str, str]]:
    return [{"t": "", "m": line} for line in text.splitlines(keepends=True)]


class LogFollower:
    """Sends new lines of the worker's log to the websockets that asked for them, as long as one of them is open."""

    def __init__(self, app: App, sockets: Sockets) -> None:
        self._app = app
        self._sockets = sockets
        self._wanted: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def want(self, client_id: str, enabled: bool) -> None:
        """Called on the server's event loop."""
        if not enabled:
            self._wanted.discard(client_id)
        elif self._sockets.is_open(client_id):
            self._wanted.add(client_id)
            if self._task is None or self._task.done():
                path = self._app.supervisor.log.path
                self._task = asyncio.create_task(self._follow(path, _size(path)))

    async def _follow(self, path: Path, at: int) -> None:
        while self._wanted:
            await asyncio.sleep(FOLLOW_SECONDS)
            self._wanted = {client_id for client_id in self._wanted if self._sockets.is_open(client_id)}
            text, at = await asyncio.to_thread(_since, path, at)
            if text:
                for client_id in self._wanted:
                    self._sockets.send(client_id, "logs", {"entries": entries(text), "size": TERMINAL})


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _since(path: Path, at: int) -> tuple[str, int]:
    """Whole lines written after `at`, and where they end. A log that was begun anew is read from its start."""
    size = _size(path)
    if size < at:
        at = 0
    if size == at:
        return "", at
    with path.open("rb") as file:
        file.seek(max(at, size - 100_000))
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    return whole.decode("utf-8", "replace"), size - len(data) + len(whole)


def _newest_first(folder: Path) -> list[Any]:
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(OSError):
            if path.is_file() and not path.name.startswith(".") and is_text(path.name):
                found.append((-path.stat().st_mtime, path.name))
    return [name for _, name in sorted(found)]
