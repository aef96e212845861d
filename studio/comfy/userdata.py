"""Files that the node editor keeps on the server: saved workflows and what else is the user's."""

from __future__ import annotations

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
from studio.comfy.requests import empty, limited, path_in, text

LARGEST_FILE_MIB = 50


def user_folder(workspace: Workspace) -> Path:
    return workspace.root / "user"


def settings_file(workspace: Workspace) -> Path:
    """The editor's settings lie among its files, and are not shown with them."""
    return user_folder(workspace) / "editor.settings.json"


def routes(app: App) -> list[BaseRoute]:
    files = UserFiles(app.workspace)
    return [
        Route("/userdata", files.list),
        Route("/v2/userdata", files.list_v2),
        Route("/userdata/{file:path}/move/{dest:path}", files.move, methods=["POST"]),
        Route("/userdata/{file:path}", files.one, methods=["GET", "POST", "DELETE"]),
    ]


class UserFiles:
    """The answers to requests for them."""

    def __init__(self, workspace: Workspace) -> None:
        self.root, self.hidden = user_folder(workspace), settings_file(workspace)

    def list(self, request: Request) -> Response:
        query = request.query_params
        if not query.get("dir"):
            return text("Directory not provided", 400)
        folder = path_in(self.root, query["dir"])
        if not folder.is_dir():
            if folder.resolve() == self.root.resolve():
                return JSONResponse([])
            return text("Directory not found", 404)
        found = folder.rglob("*") if query.get("recurse", "").lower() == "true" else folder.glob("*")
        shown = (p for p in found if is_text(str(p)) and not p.name.startswith(".") and p != self.hidden)
        files = sorted(p for p in shown if os.path.isfile(p))
        names = [p.relative_to(folder).as_posix() for p in files]
        if query.get("full_info", "").lower() == "true":
            return JSONResponse([{**_about(p), "path": n} for p, n in zip(files, names, strict=True)])
        if query.get("split", "").lower() == "true":
            return JSONResponse([[n, *n.split("/")] for n in names])
        return JSONResponse(names)

    def list_v2(self, request: Request) -> Response:
        folder = path_in(self.root, unquote(request.query_params.get("path", "")))
        if not folder.is_dir():
            return JSONResponse([]) if folder.resolve() == self.root.resolve() else text("Directory not found", 404)
        rows = []
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or path == self.hidden or not is_text(path.name) or not path.exists():
                continue
            kind = "directory" if path.is_dir() else "file"
            row = {"name": path.name, "path": path.relative_to(self.root).as_posix(), "type": kind}
            rows.append({**row, **({} if path.is_dir() else _about(path))})
        return JSONResponse(rows)

    async def one(self, request: Request) -> Response:
        path = self._file(request.path_params["file"])
        if request.method == "POST":
            return await self._write(request, path)
        if not path.is_file():
            return empty(404)
        if request.method == "DELETE":
            path.unlink()
            return empty(204)
        kind = "application/json" if path.suffix == ".json" else "text/plain"  # never text/html: it would run here
        return FileResponse(path, media_type=kind)

    async def _write(self, request: Request, path: Path) -> Response:
        if path.exists() and request.query_params.get("overwrite", "true").lower() == "false":
            return text("File already exists", 409)
        data = await limited(request, LARGEST_FILE_MIB).body()

        def write() -> None:
            with replacing(path) as file:
                file.write(data)

        await run_in_threadpool(write)
        return self._answer(request, path)

    def move(self, request: Request) -> Response:
        source, target = self._file(request.path_params["file"]), self._file(request.path_params["dest"])
        if not source.is_file():
            return empty(404)
        if target.exists() and request.query_params.get("overwrite", "true").lower() == "false":
            return text("File already exists", 409)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source, target)
        return self._answer(request, target)

    def _file(self, name: str) -> Path:
        """A file of the user. The name may be escaped twice: editors send it as one path segment."""
        name = unquote(name)
        path = path_in(self.root, name)
        if not name or any(part.startswith(".") for part in Path(name).parts):
            raise OutsideWorkspace(path=name[:200], root=self.root.name)
        return path

    def _answer(self, request: Request, path: Path) -> Response:
        name = path.relative_to(self.root).as_posix()
        if request.query_params.get("full_info", "").lower() == "true":
            return JSONResponse({"path": name, **_about(path)})
        return JSONResponse(name)


def _about(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"size": status.st_size, "modified": int(status.st_mtime * 1000), "created": int(status.st_ctime * 1000)}
