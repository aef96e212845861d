"""The files of a dataset: its pictures, thumbnails and masks to look at, and those that people send. Routes only."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from engine.dataset.decoding import PictureGone
from engine.dataset.export import SIDECAR_SUFFIXES, add_sidecar
from engine.dataset.job import uploads
from engine.dataset.library import Dataset, safe_name
from engine.dataset.mask_files import add_mask_file
from engine.dataset.masks import mask_path
from engine.dataset.pictures import add_upload, thumbnail
from engine.dataset.view import View
from engine.errors import GONE, DiskFull, NotFound
from studio.app import App
from studio.comfy.requests import file_body, limited

FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}  # addresses carry the content's hash
FORGOTTEN = 7 * 86_400.0  # seconds after which an upload that no job took is deleted

Opened = Callable[[str], tuple[Dataset, View]]


def routes(app: App, opened: Opened) -> list[BaseRoute]:
    return [*_sent(app, opened), *_looked_at(opened)]


def _looked_at(opened: Opened) -> list[BaseRoute]:
    async def file(request: Request) -> Response:
        def find() -> Path:
            dataset, _ = opened(request.path_params["name"])
            picture = dataset.store.picture(request.path_params["id"])
            small = request.path_params["size"] == "thumb"
            path = thumbnail(dataset, picture) if small else dataset.path(picture.path)
            if not path.is_file():
                raise PictureGone(name=picture.name)
            return path

        return FileResponse(await run_in_threadpool(find), headers=FOREVER)

    async def mask(request: Request) -> Response:
        def find() -> Path:
            dataset, _ = opened(request.path_params["name"])
            id = dataset.store.picture(request.path_params["id"]).id
            name = dataset.store.marks("mask", id).get(id)
            if name is None or not mask_path(dataset, name).is_file():
                raise NotFound(what="mask", what_zh="蒙版", name=id, **GONE)
            return mask_path(dataset, name)

        return FileResponse(await run_in_threadpool(find), headers=FOREVER)

    return [Route("/datasets/{name}/mask/{id:int}", mask), Route("/datasets/{name}/{size}/{id:int}", file)]


def _sent(app: App, opened: Opened) -> list[BaseRoute]:
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

    return [
        Route("/datasets/{name}/upload", upload, methods=["POST"]),
        Route("/datasets/{name}/archive", archive, methods=["POST"]),
    ]


def folder_made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _add_picture(dataset: Dataset, name: str, data: bytes) -> str:
    """A picture, or by its name the mask of one that is there."""
    return add_mask_file(dataset, name, data) or add_upload(dataset, name, data)


async def _received(request: Request, folder: Path) -> Path:
    """The body in a file of its own in `folder`, from which what was forgotten is swept. Raises DiskFull."""
    for old in folder_made(folder).iterdir():
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
