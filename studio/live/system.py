"""The machine and the models for the page: device memory, ledger, disk, log, what lies in the model folders."""

from __future__ import annotations

import shutil
from typing import Any

import psutil
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from engine.errors import EaselError
from engine.errors import describe as error_json
from engine.weights.header import read_header
from engine.weights.identify import identify
from engine.workspace import MODEL_FOLDERS
from studio.app import App
from studio.gate import owner_only
from studio.live.events import worker_json
from taggers.catalogue import installed

LOG_BYTES = 60_000


def routes(app: App) -> list[BaseRoute]:
    async def system(_: Request) -> Response:
        return JSONResponse(await run_in_threadpool(describe, app))

    async def models(_: Request) -> Response:
        return JSONResponse({"models": await run_in_threadpool(list_models, app)})

    async def log(request: Request) -> Response:
        owner_only(request)
        return JSONResponse({"log": await run_in_threadpool(tail_of_log, app)})

    return [Route("/system", system), Route("/models", models), Route("/log", log)]


def describe(app: App) -> dict[str, Any]:
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(app.workspace.root)
    try:
        device = app.supervisor.request("snapshot", {}, timeout=2.0)
    except EaselError as error:
        device = {"error": error.to_json()}
    return {
        "worker": worker_json(app),
        "device": device,
        "cpu": {"count": psutil.cpu_count(), "load": psutil.getloadavg()[0]},
        "memory": {"total": memory.total, "used": memory.total - memory.available},
        "disk": {"total": disk.total, "free": disk.free, "path": str(app.workspace.root)},
    }


def list_models(app: App) -> list[dict[str, Any]]:
    """Every model file with its folder, size and what its header says; a broken one with its error."""
    found = []
    for folder in MODEL_FOLDERS:
        for name in app.workspace.list_models(folder):
            row: dict[str, Any] = {"folder": folder, "name": name, "bytes": 0}
            try:
                row["bytes"] = app.workspace.model_path(folder, name).stat().st_size
                row |= _identity(app, folder, name)
            except (EaselError, OSError) as error:
                row["error"] = error_json(error)
            found.append(row)
    return found


def _identity(app: App, folder: str, name: str) -> dict[str, str]:
    if name.endswith(".onnx"):
        one = next((t for t in installed(app.workspace) if t.file == app.workspace.model_path(folder, name)), None)
        return {"family": one.spec().title if one else "", "title": one.name if one else ""}
    info = identify(read_header(app.workspace.model_path(folder, name)))
    return {"family": info.family_title if info.family else "", "title": info.title}


def tail_of_log(app: App) -> str:
    path = app.workspace.cache / "logs" / "worker.log"
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LOG_BYTES))
        return file.read().decode("utf-8", errors="replace")
