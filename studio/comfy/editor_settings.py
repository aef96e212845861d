"""The node editor's settings: any JSON by name, and who it thinks is using it."""

from __future__ import annotations

import json
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from engine.workspace import Workspace, replacing
from studio.app import App
from studio.comfy.requests import MIB, empty, json_body, json_object, text
from studio.comfy.userdata import settings_file

USER = "default"
LARGEST = 2 * MIB


class EditorSettings:
    """The settings that an editor stores: any JSON by name."""

    def __init__(self, workspace: Workspace) -> None:
        self.path = settings_file(workspace)

    def read(self) -> dict[str, Any]:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return found if isinstance(found, dict) else {}

    def write(self, changes: dict[str, Any]) -> bool:
        """False when there would be too many; then nothing is changed."""
        data = json.dumps({**self.read(), **changes}).encode()
        if len(data) > LARGEST:
            return False
        with replacing(self.path) as file:
            file.write(data)
        return True


def routes(app: App) -> list[BaseRoute]:
    kept = EditorSettings(app.workspace)

    async def users(request: Request) -> Response:
        if request.method == "POST":  # there is one; whoever asks for another is told its id
            return JSONResponse(USER)
        return JSONResponse({"storage": "server", "migrated": True})

    def write_settings(changes: dict[str, Any]) -> Response:
        return empty() if kept.write(changes) else text("The settings are too large", 413)

    async def settings(request: Request) -> Response:
        if request.method == "POST":
            return await run_in_threadpool(write_settings, await json_object(request))
        return JSONResponse(await run_in_threadpool(kept.read))

    async def one_setting(request: Request) -> Response:
        name = request.path_params["name"]
        if request.method == "POST":
            return await run_in_threadpool(write_settings, {name: await json_body(request)})
        return JSONResponse((await run_in_threadpool(kept.read)).get(name))

    return [
        Route("/users", users, methods=["GET", "POST"]),
        Route("/settings", settings, methods=["GET", "POST"]),
        Route("/settings/{name:path}", one_setting, methods=["GET", "POST"]),
    ]
