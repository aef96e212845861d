"""What the node editor keeps on the server: its settings, saved workflows and other files of the user."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from engine.errors import OutsideWorkspace
from engine.workspace import Workspace, is_text, replacing
from studio.app import App
from studio.comfy.requests import MIB, empty, json_body, json_object, limited, path_in, text

USER = "default"
LARGEST_FILE_MIB = 50
LARGEST_SETTINGS = 2 * MIB


class EditorSettings:
    """The settings that an editor stores: any JSON by name."""

    def __init__(self, workspace: Workspace) -> None:
        self.path = user_folder(workspace) / "editor.settings.json"

    def read(self) -> dict[str, Any]:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return found if isinstance(found, dict) else {}

    def write(self, changes: dict[str, Any]) -> bool:
        """False when there would be too many; then nothing is changed."""
        data = json.dumps({**self.read(), **changes}).encode()
        if len(data) > LARGEST_SETTINGS:
            return False
        with replacing(self.path) as file:
            file.write(data)
        return True


def user_folder(workspace: Workspace) -> Path:
    return workspace.root / "user"


def routes(app: App) -> list[BaseRoute]:
    root = user_folder(app.workspace)
    kept = EditorSettings(app.workspace)
    settings_file = kept.path

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

    def list_files(request: Request) -> Response:
        query = request.query_params
        if not query.get("dir"):
            return text("Directory not provided", 400)
        folder = path_in(root, query["dir"])
        if not folder.is_dir():
            if folder.resolve() == root.resolve():
                return JSONResponse([])
            return text("Directory not found", 404)
        found = folder.rglob("*") if query.get("recurse", "").lower() == "true" else folder.glob("*")
        shown = (p for p in found if is_text(str(p)) and not p.name.startswith(".") and p != settings_file)
        files = sorted(p for p in shown if os.path.isfile(p))
        names = [p.relative_to(folder).as_posix() for p in files]
        if query.get("full_info", "").lower() == "true":
            return JSONResponse([{**_about(p), "path": n} for p, n in zip(files, names, strict=True)])
        if query.get("split", "").lower() == "true":
            return JSONResponse([[n, *n.split("/")] for n in names])
        return JSONResponse(names)

    def list_files_v2(request: Request) -> Response:
        folder = path_in(root, unquote(request.query_params.get("path", "")))
        if not folder.is_dir():
            return JSONResponse([]) if folder.resolve() == root.resolve() else text("Directory not found", 404)
        rows = []
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or path == settings_file or not is_text(path.name) or not path.exists():
                continue
            kind = "directory" if path.is_dir() else "file"
            row = {"name": path.name, "path": path.relative_to(root).as_posix(), "type": kind}
            rows.append({**row, **({} if path.is_dir() else _about(path))})
        return JSONResponse(rows)

    async def one_file(request: Request) -> Response:
        path = _file(root, request.path_params["file"])
        if request.method == "POST":
            return await write_file(request, path)
        if not path.is_file():
            return empty(404)
        if request.method == "DELETE":
            path.unlink()
            return empty(204)
        kind = "application/json" if path.suffix == ".json" else "text/plain"  # never text/html: it would run here
        return FileResponse(path, media_type=kind)

    async def write_file(request: Request, path: Path) -> Response:
        if path.exists() and request.query_params.get("overwrite", "true").lower() == "false":
            return text("File already exists", 409)
        data = await limited(request, LARGEST_FILE_MIB).body()

        def write() -> None:
            with replacing(path) as file:
                file.write(data)

        await run_in_threadpool(write)
        return _answer(request, root, path)

    def move_file(request: Request) -> Response:
        source, target = _file(root, request.path_params["file"]), _file(root, request.path_params["dest"])
        if not source.is_file():
            return empty(404)
        if target.exists() and request.query_params.get("overwrite", "true").lower() == "false":
            return text("File already exists", 409)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source, target)
        return _answer(request, root, target)

    return [
        Route("/users", users, methods=["GET", "POST"]),
        Route("/settings", settings, methods=["GET", "POST"]),
        Route("/settings/{name:path}", one_setting, methods=["GET", "POST"]),
        Route("/userdata", list_files),
        Route("/v2/userdata", list_files_v2),
        Route("/userdata/{file:path}/move/{dest:path}", move_file, methods=["POST"]),
        Route("/userdata/{file:path}", one_file, methods=["GET", "POST", "DELETE"]),
    ]


def _file(root: Path, name: str) -> Path:
    """A file of the user. The name may be escaped twice: editors send it as one path segment."""
    name = unquote(name)
    path = path_in(root, name)
    if not name or any(part.startswith(".") for part in Path(name).parts):
        raise OutsideWorkspace(path=name[:200], root=root.name)
    return path


def _about(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"size": status.st_size, "modified": int(status.st_mtime * 1000), "created": int(status.st_ctime * 1000)}


def _answer(request: Request, root: Path, path: Path) -> Response:
    name = path.relative_to(root).as_posix()
    if request.query_params.get("full_info", "").lower() == "true":
        return JSONResponse({"path": name, **_about(path)})
    return JSONResponse(name)
