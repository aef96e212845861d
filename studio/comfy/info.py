"""What clients ask about the studio: nodes, the system, features, and what editors expect to be there."""

from __future__ import annotations

import json
import os
import platform
import sys
from typing import Any

import psutil
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from engine.errors import EaselError
from studio.app import App
from studio.versions import installed_version

COMFY_API = "0.3.64"  # the version of the API that is spoken here; clients compare it
FEATURES: dict[str, Any] = {"supports_preview_metadata": True}


def routes(app: App) -> list[BaseRoute]:
    workspace = app.workspace

    def object_info(request: Request) -> Response:
        return Response(json.dumps(app.nodes.refresh().object_info(workspace)), media_type="application/json")

    def one_object_info(request: Request) -> Response:
        name = request.path_params["name"]
        return JSONResponse(app.nodes.refresh().object_info_of(name, workspace))

    def system_stats(request: Request) -> Response:
        return JSONResponse(_system(app))

    def features(request: Request) -> Response:
        return JSONResponse({**FEATURES, "max_upload_size": app.settings.limits.upload_mb * 2**20})

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
        Route("/i18n", i18n),
        Route("/global_subgraphs", nothing),
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
