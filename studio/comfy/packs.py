"""Node packs of others over HTTP: which there are, what they show in the editor, what stands for old nodes."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from engine.graph.replacement import listed
from studio.app import App
from studio.comfy.requests import empty, path_in


def routes(app: App) -> list[BaseRoute]:
    def packs(request: Request) -> Response:
        return JSONResponse({"enabled": app.nodes.custom, "packs": app.nodes.packs()})

    def extensions(request: Request) -> Response:
        return JSONResponse(scripts(app))

    def extension_file(request: Request) -> Response:
        folder = _web_folders(app).get(request.path_params["pack"])
        if folder is None:
            return empty(404)
        path = path_in(folder, request.path_params["file"])
        return FileResponse(path) if path.is_file() else empty(404)

    def node_replacements(request: Request) -> Response:
        return JSONResponse(listed(app.nodes.replacements))

    return [
        Route("/custom_nodes", packs),
        Route("/extensions", extensions),
        Route("/extensions/{pack}/{file:path}", extension_file),
        Route("/node_replacements", node_replacements),
    ]


def scripts(app: App) -> list[str]:
    """What the editor loads of packs at its start, relative to the root that it is served from."""
    return [url for name, folder in _web_folders(app).items() for url in _scripts(name, folder)]


def _web_folders(app: App) -> dict[str, Path]:
    """Folders that packs serve to the editor, by pack."""
    return {pack["name"]: Path(pack["web"]) for pack in app.nodes.packs() if pack["web"]}


def _scripts(name: str, folder: Path) -> list[str]:
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.js") if path.is_file())
    return [f"/extensions/{quote(name)}/{quote(file)}" for file in files]
