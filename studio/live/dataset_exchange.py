"""What goes between a dataset and other programs in one file: caption files, zips, lists of tags. Routes only."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from engine.dataset.archives import pack
from engine.dataset.autocomplete import read_tag_list
from engine.dataset.formats import FILES, PROMPT, export_file, import_file
from engine.dataset.library import Dataset, safe_name
from engine.dataset.view import View
from engine.errors import InputError
from studio.app import App
from studio.comfy.requests import file_body
from studio.live.dataset_drawn import report_json
from studio.live.dataset_files import Opened, folder_made


class UnknownFormat(InputError):
    en = "Captions can't be written as '{format}'. Known: {known}."
    zh = "无法以“{format}”格式写出描述。已知：{known}。"


def routes(app: App, opened: Opened) -> list[BaseRoute]:
    return [*_coming_in(app, opened), *_going_out(app, opened)]


def _coming_in(app: App, opened: Opened) -> list[BaseRoute]:
    async def captions(request: Request) -> Response:
        """A file of captions in one of the formats that export writes."""
        sent, fields = await file_body(request, "file", app.settings.limits.upload_mb)
        data, name = await sent.read(), safe_name(sent.filename or "")
        read_as = "caption" if fields.get("read_as") == "caption" else "tags"

        def take() -> dict[str, Any]:
            dataset, view = opened(request.path_params["name"])
            with tempfile.TemporaryDirectory(dir=folder_made(app.workspace.cache / "zip")) as folder:
                path = Path(folder, name)
                path.write_bytes(data)
                return report_json(import_file(dataset, view, path, read_as=read_as))

        return JSONResponse(await run_in_threadpool(take))

    async def tags(request: Request) -> Response:
        """A list of tags to complete, kept only when it can be read."""
        sent, _ = await file_body(request, "file", app.settings.limits.upload_mb)
        data, name = await sent.read(), f"{safe_name(sent.filename or 'tags').removesuffix('.csv')}.csv"

        def keep() -> int:
            with tempfile.TemporaryDirectory(dir=folder_made(app.workspace.tag_lists)) as folder:
                path = Path(folder, name)
                path.write_bytes(data)
                rows = read_tag_list(path)
                os.replace(path, app.workspace.tag_lists / name)
                return len(rows)

        return JSONResponse({"tags": await run_in_threadpool(keep), "name": name})

    return [
        Route("/datasets/tags", tags, methods=["POST"]),
        Route("/datasets/{name}/captions", captions, methods=["POST"]),
    ]


def _going_out(app: App, opened: Opened) -> list[BaseRoute]:
    async def made(request: Request, name: str, write: Callable[[Dataset, View, Path], object]) -> Response:
        """A file made for one download and deleted after it."""

        def make() -> Path:
            dataset, view = opened(request.path_params["name"])
            folder, suffix = folder_made(app.workspace.cache / "zip"), Path(name).suffix
            with tempfile.NamedTemporaryFile(dir=folder, suffix=suffix, delete=False) as f:
                path = Path(f.name)
            write(dataset, view, path)
            return path

        path = await run_in_threadpool(make)
        return FileResponse(path, filename=name, background=BackgroundTask(path.unlink))

    async def packed(request: Request) -> Response:
        return await made(request, f"{request.path_params['name']}.zip", lambda d, v, path: pack(d, v, path))

    async def exported(request: Request) -> Response:
        format: Any = request.query_params.get("format", "")
        if format not in FILES:
            raise UnknownFormat(format=format[:40], known=", ".join(FILES))
        prompt = request.query_params.get("prompt") or PROMPT
        return await made(request, FILES[format], lambda d, v, path: export_file(d, v, format, path, prompt=prompt))

    return [Route("/datasets/{name}/zip", packed), Route("/datasets/{name}/file", exported)]
