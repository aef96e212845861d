"""Files into a dataset and out of it: pictures, zips, caption files, masks, lists of tags. Routes only."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
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
from engine.dataset.export import SIDECAR_SUFFIXES, add_sidecar
from engine.dataset.formats import FILES, PROMPT, export_file, import_file
from engine.dataset.job import uploads
from engine.dataset.library import Dataset, safe_name
from engine.dataset.mask_files import add_mask_file
from engine.dataset.masks import mask_path
from engine.dataset.pictures import add_upload, thumbnail
from engine.dataset.view import View
from engine.errors import GONE, DiskFull, InputError, NotFound
from studio.app import App
from studio.comfy.requests import file_body, limited
from studio.live.dataset_drawn import report_json

FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}  # addresses carry the content's hash
FORGOTTEN = 7 * 86_400.0  # seconds after which an upload that no job took is deleted

Opened = Callable[[str], tuple[Dataset, View]]


class UnknownFormat(InputError):
    en = "Captions can't be written as '{format}'. Known: {known}."
    zh = "无法以“{format}”格式写出字幕。已知：{known}。"


def routes(app: App, opened: Opened) -> list[BaseRoute]:
    async def file(request: Request) -> Response:
        def find() -> Path:
            dataset, _ = opened(request.path_params["name"])
            picture = dataset.store.picture(request.path_params["id"])
            small = request.path_params["size"] == "thumb"
            return thumbnail(dataset, picture) if small else dataset.path(picture.path)

        return FileResponse(await run_in_threadpool(find), headers=FOREVER)

    async def mask(request: Request) -> Response:
        def find() -> Path:
            dataset, _ = opened(request.path_params["name"])
            name = dataset.store.marks("mask").get(request.path_params["id"])
            if name is None or not mask_path(dataset, name).is_file():
                raise NotFound(what="mask", what_zh="蒙版", name=request.path_params["id"], **GONE)
            return mask_path(dataset, name)

        return FileResponse(await run_in_threadpool(find), headers=FOREVER)

    async def upload(request: Request) -> Response:
        sent, _ = await file_body(request, "file", app.settings.limits.upload_mb)
        data, name = await sent.read(), sent.filename or ""
        dataset, _ = await run_in_threadpool(opened, request.path_params["name"])
        keep = add_sidecar if name.lower().endswith(SIDECAR_SUFFIXES) else _add_picture
        return JSONResponse({"name": await run_in_threadpool(keep, dataset, name, data)})

    async def archive(request: Request) -> Response:
        """A zip as the whole body: it goes straight to the disk, whatever its size, and a job unpacks it."""
        name = safe_name(request.query_params.get("name", "upload.zip"))
        dataset, _ = await run_in_threadpool(opened, request.path_params["name"])
        path = await _received(limited(request, app.settings.limits.archive_mb), uploads(app.workspace))
        settings = {
            "dataset": dataset.name,
            "archive": path.name,
            "name": name,
            "read_as": request.query_params.get("read_as", "tags"),
            "max_gb": app.settings.limits.unpacked_gb,
        }
        try:
            job = await run_in_threadpool(lambda: app.submit("unpack", settings, title=name))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return JSONResponse({"job": job.id}, 202)

    async def captions(request: Request) -> Response:
        """A file of captions in one of the formats that export writes."""
        sent, fields = await file_body(request, "file", app.settings.limits.upload_mb)
        data, name = await sent.read(), safe_name(sent.filename or "")
        read_as = "caption" if fields.get("read_as") == "caption" else "tags"

        def take() -> dict[str, Any]:
            dataset, view = opened(request.path_params["name"])
            with tempfile.TemporaryDirectory(dir=_folder(app.workspace.cache / "zip")) as folder:
                path = Path(folder, name)
                path.write_bytes(data)
                return report_json(import_file(dataset, view, path, read_as=read_as))

        return JSONResponse(await run_in_threadpool(take))

    async def tags(request: Request) -> Response:
        """A list of tags to complete, kept only when it can be read."""
        sent, _ = await file_body(request, "file", app.settings.limits.upload_mb)
        data, name = await sent.read(), safe_name(sent.filename or "tags.csv")

        def keep() -> int:
            with tempfile.TemporaryDirectory(dir=_folder(app.workspace.tag_lists)) as folder:
                path = Path(folder, name)
                path.write_bytes(data)
                rows = read_tag_list(path)
                os.replace(path, app.workspace.tag_lists / name)
                return len(rows)

        return JSONResponse({"tags": await run_in_threadpool(keep), "name": name})

    async def packed(request: Request) -> Response:
        return await _made(app, request, ".zip", f"{request.path_params['name']}.zip", lambda d, v, p: pack(d, v, p))

    async def exported(request: Request) -> Response:
        format: Any = request.query_params.get("format", "")
        if format not in FILES:
            raise UnknownFormat(format=format[:40], known=", ".join(FILES))
        prompt = request.query_params.get("prompt") or PROMPT

        def write(dataset: Dataset, view: View, path: Path) -> object:
            return export_file(dataset, view, format, path, prompt=prompt)

        return await _made(app, request, Path(FILES[format]).suffix, FILES[format], write)

    async def _made(
        app: App, request: Request, suffix: str, name: str, write: Callable[[Dataset, View, Path], object]
    ) -> Response:
        """A file made for one download and deleted after it."""

        def make() -> Path:
            dataset, view = opened(request.path_params["name"])
            with tempfile.NamedTemporaryFile(
                dir=_folder(app.workspace.cache / "zip"), suffix=suffix, delete=False
            ) as f:
                path = Path(f.name)
            write(dataset, view, path)
            return path

        path = await run_in_threadpool(make)
        return FileResponse(path, filename=name, background=BackgroundTask(path.unlink))

    return [
        Route("/datasets/tags", tags, methods=["POST"]),
        Route("/datasets/{name}/zip", packed),
        Route("/datasets/{name}/file", exported),
        Route("/datasets/{name}/upload", upload, methods=["POST"]),
        Route("/datasets/{name}/archive", archive, methods=["POST"]),
        Route("/datasets/{name}/captions", captions, methods=["POST"]),
        Route("/datasets/{name}/mask/{id:int}", mask),
        Route("/datasets/{name}/{size}/{id:int}", file),
    ]


def _add_picture(dataset: Dataset, name: str, data: bytes) -> str:
    """A picture, or by its name the mask of one that is there."""
    return add_mask_file(dataset, name, data) or add_upload(dataset, name, data)


async def _received(request: Request, folder: Path) -> Path:
    """The body in a file of its own in `folder`, from which what was forgotten is swept. Raises DiskFull."""
    for old in _folder(folder).iterdir():
        if time.time() - old.stat().st_mtime > FORGOTTEN:
            old.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, suffix=".zip")
    try:
        with os.fdopen(handle, "wb") as file:
            async for block in request.stream():
                await asyncio.to_thread(file.write, block)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise DiskFull(path=folder, need=str(error)) from error
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path
