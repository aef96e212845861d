"""What clients ask about the studio: nodes, models, the system, features, and what editors expect to be there."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import psutil
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from engine.errors import EaselError, NotFound
from engine.workspace import MODEL_FOLDERS, Workspace, is_text
from studio.app import App
from studio.comfy.requests import empty
from studio.versions import installed_version

COMFY_API = "0.3.64"  # the version of the API that is spoken here; clients compare it
FEATURES: dict[str, Any] = {"supports_preview_metadata": True}
LONGEST_HEADER = 100 * 2**20


def routes(app: App) -> list[BaseRoute]:
    workspace = app.workspace

    def object_info(request: Request) -> Response:
        return Response(json.dumps(app.nodes.catalogue().object_info(workspace)), media_type="application/json")

    def one_object_info(request: Request) -> Response:
        name = request.path_params["name"]
        return JSONResponse(app.nodes.catalogue().object_info_of(name, workspace))

    def system_stats(request: Request) -> Response:
        return JSONResponse(_system(app))

    def features(request: Request) -> Response:
        return JSONResponse({**FEATURES, "max_upload_size": app.settings.limits.upload_mb * 2**20})

    def models(request: Request) -> Response:
        return JSONResponse(list(MODEL_FOLDERS))

    def models_in(request: Request) -> Response:
        try:
            return JSONResponse(workspace.list_models(request.path_params["folder"]))
        except NotFound:
            return empty(404)

    def embeddings(request: Request) -> Response:
        return JSONResponse([os.path.splitext(name)[0] for name in workspace.list_models("embeddings")])

    def view_metadata(request: Request) -> Response:
        name = request.query_params.get("filename", "")
        if not name.endswith(".safetensors"):
            return empty(404)
        try:
            metadata = _metadata(workspace.model_path(request.path_params["folder"], name))
        except (EaselError, OSError):
            return empty(404)
        return JSONResponse(metadata) if metadata else empty(404)

    def experiment_models(request: Request) -> Response:
        rows = [{"name": f, "folders": [str(p) for p in workspace.model_roots(f)]} for f in MODEL_FOLDERS]
        return JSONResponse(rows)

    def experiment_models_in(request: Request) -> Response:
        try:
            return JSONResponse(_files_of(workspace, request.path_params["folder"]))
        except NotFound:
            return empty(404)

    def folder_paths(request: Request) -> Response:
        return JSONResponse({f: [str(p) for p in workspace.model_roots(f)] for f in MODEL_FOLDERS})

    def files(request: Request) -> Response:
        folders = {"output": workspace.output, "input": workspace.input, "temp": workspace.temp}
        folder = folders.get(request.path_params["kind"])
        if folder is None:
            return JSONResponse({"error": "Invalid directory type"}, 400)
        return JSONResponse(_newest_first(folder))

    def logs(request: Request) -> Response:
        return JSONResponse(app.supervisor.log.tail())

    def logs_raw(request: Request) -> Response:
        lines = app.supervisor.log.tail().splitlines(keepends=True)
        return JSONResponse({"entries": [{"t": "", "m": line} for line in lines], "size": {"cols": 120, "rows": 40}})

    def logs_subscribe(request: Request) -> Response:
        return empty()  # editors poll /internal/logs/raw as well

    def i18n(request: Request) -> Response:
        return JSONResponse(app.nodes.catalogue().i18n())

    def nothing(request: Request) -> Response:
        return JSONResponse({})

    def no_rows(request: Request) -> Response:
        return JSONResponse([])

    return [
        Route("/object_info", object_info),
        Route("/object_info/{name:path}", one_object_info),
        Route("/system_stats", system_stats),
        Route("/features", features),
        Route("/models", models),
        Route("/models/{folder}", models_in),
        Route("/embeddings", embeddings),
        Route("/view_metadata/{folder}", view_metadata),
        Route("/experiment/models", experiment_models),
        Route("/experiment/models/{folder}", experiment_models_in),
        Route("/internal/folder_paths", folder_paths),
        Route("/internal/files/{kind}", files),
        Route("/internal/logs", logs),
        Route("/internal/logs/raw", logs_raw),
        Route("/internal/logs/subscribe", logs_subscribe, methods=["PATCH"]),
        Route("/extensions", no_rows),
        Route("/i18n", i18n),
        Route("/workflow_templates", nothing),
        Route("/global_subgraphs", nothing),
        Route("/node_replacements", nothing),
    ]


def _system(app: App) -> dict[str, Any]:
    memory = psutil.virtual_memory()
    return {
        "system": {
            "os": os.name,
            "ram_total": memory.total,
            "ram_free": memory.available,
            "comfyui_version": COMFY_API,
            "easel_version": installed_version("easel-studio"),
            "required_frontend_version": "",
            "installed_templates_version": "",
            "required_templates_version": "",
            "python_version": sys.version,
            "pytorch_version": installed_version("torch"),
            "embedded_python": False,
            "argv": ["studio", "serve"],
            "platform": platform.system(),
        },
        "devices": [_device(app, memory.total, memory.available)],
        "worker": app.supervisor.state,
    }


def _device(app: App, total: int, free: int) -> dict[str, Any]:
    """The worker's device; while it can't answer, what is known without it."""
    try:
        seen = app.supervisor.request("snapshot", {}, timeout=0.15)
    except (EaselError, TimeoutError):
        seen = {}
    kind = seen.get("kind", app.settings.device.partition(":")[0])
    total, free = seen.get("total", total), seen.get("free", free)
    return {
        "name": seen.get("device", app.settings.device),
        "type": kind,
        "index": 0 if kind == "cuda" else None,
        "vram_total": total,
        "vram_free": free,
        "torch_vram_total": total,
        "torch_vram_free": free,
    }


def _metadata(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(LONGEST_HEADER, path.stat().st_size):
            return {}
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            return {}
    return header.get("__metadata__") or {} if isinstance(header, dict) else {}


def _newest_first(folder: Path) -> list[str]:
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(OSError):
            if path.is_file() and not path.name.startswith(".") and is_text(path.name):
                found.append((-path.stat().st_mtime, path.name))
    return [name for _, name in sorted(found)]


def _files_of(workspace: Workspace, folder: str) -> list[dict[str, Any]]:
    roots = workspace.model_roots(folder)
    rows = []
    for name in workspace.list_models(folder):
        try:
            index, status = next((i, (r / name).stat()) for i, r in enumerate(roots) if os.path.isfile(r / name))
        except (StopIteration, OSError):
            continue  # it went since it was listed
        row = {"name": name, "pathIndex": index, "modified": status.st_mtime, "created": status.st_ctime}
        rows.append({**row, "size": status.st_size})
    return rows
