"""The official node editor at /comfy/: its own package (GPL-3.0), served as it is and never part of this project.

It finds the API relative to its own address, so the routes are there once more. Its pages carry a Content-Security-
Policy that lets them speak to this origin only: the editor asks its makers' servers at every start otherwise. Its
language and theme follow the studio's, by cookies that the page sets. A script of ours beside it (bridge.js) takes
messages from the page around it.
"""

from __future__ import annotations

import gzip
import mimetypes
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from engine.errors import EaselError
from engine.workspace import replacing
from studio.app import App
from studio.comfy.editor_settings import EditorSettings
from studio.comfy.packs import scripts
from studio.comfy.requests import empty, path_in
from studio.comfy.userdata import user_folder
from studio.gate import language_of
from studio.versions import installed_version

PACKAGE = "comfyui_frontend_package"
DISTRIBUTION = "comfyui-frontend-package"
BRIDGE = Path(__file__).with_name("bridge.js")
FOREVER = "public, max-age=31536000, immutable"
CONTENT_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "frame-ancestors 'self'",
        "frame-src 'self'",
        "form-action 'self'",
        "base-uri 'self'",
        "object-src 'none'",
    )
)
PALETTES = ("dark", "light")
# What a fresh editor would otherwise do: show a tour, ask its makers for news, warn about versions it can't know, and
# look as it needs a whole window.
FIRST_SETTINGS: dict[str, Any] = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.VersionCompatibility.DisableWarnings": True,
    "LiteGraph.Canvas.MinFontSizeForLOD": 4,  # words stay when a graph is fitted into the tab
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Minimap.Visible": False,
}
_PACKED = (".js", ".css", ".json", ".svg", ".html")
_SMALLEST_PACKED = 1500


def frontend_folder() -> Path | None:
    """Where the editor's files lie, when its package is installed."""
    found = find_spec(PACKAGE)
    folder = Path(found.origin).parent / "static" if found and found.origin else None
    return folder if folder and (folder / "index.html").is_file() else None


def is_served(app: App) -> bool:
    return app.settings.server.editor and frontend_folder() is not None


def routes(app: App, comfy: Sequence[BaseRoute], again: Sequence[BaseRoute]) -> list[BaseRoute]:
    """/comfy and all below it; nothing when the package is not there. `comfy`, `again`: the API's routes, twice."""
    folder = frontend_folder()
    if folder is None or not is_served(app):
        return []
    settings = EditorSettings(app.workspace)
    packed = app.workspace.cache / "editor" / (installed_version(DISTRIBUTION) or "unknown")

    async def slash(request: Request) -> Response:
        return RedirectResponse("comfy/", 307)  # relative, for those who reach us under a path of a proxy

    async def editor_settings(request: Request) -> Response:
        stored = await run_in_threadpool(settings.read)
        return JSONResponse({**FIRST_SETTINGS, **stored, **followed(app, request, stored)})

    async def extensions(request: Request) -> Response:
        return JSONResponse(["/extensions/easel/bridge.js", *await run_in_threadpool(scripts, app)])

    async def style(request: Request) -> Response:
        own = user_folder(app.workspace) / "user.css"
        text = await run_in_threadpool(own.read_text, "utf-8") if own.is_file() else ""
        return _guarded(Response(text, media_type="text/css"))

    async def index(request: Request) -> Response:
        await run_in_threadpool(_make_folders, user_folder(app.workspace))
        return await file(request)

    async def bridge(request: Request) -> Response:
        return _guarded(FileResponse(BRIDGE, media_type="text/javascript", headers={"Cache-Control": "no-cache"}))

    async def file(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        try:
            path = path_in(folder, name)
        except EaselError:
            return empty(404)
        if not path.is_file():
            return empty(404)
        return _guarded(
            await run_in_threadpool(_answer, path, name, packed, request.headers.get("accept-encoding", ""))
        )

    return [
        Route("/comfy", slash),
        Route("/comfy/api/settings", editor_settings, methods=["GET"]),
        Route("/comfy/api/extensions", extensions),
        Route("/comfy/api/userdata/user.css", style),
        Mount("/comfy/api", routes=again),
        Route("/comfy/user.css", style),
        Route("/comfy/", index),
        Route("/comfy/extensions/easel/bridge.js", bridge),
        Mount("/comfy", routes=[*comfy, Route("/{name:path}", file)]),
    ]


def followed(app: App, request: Request, stored: dict[str, Any]) -> dict[str, Any]:
    """Settings that are the studio's to say: its language, and light or dark. A palette of the user's own stays."""
    chosen = request.cookies.get("easel_lang", "")
    language = language_of(chosen) if chosen else app.language(request)
    found: dict[str, Any] = {"Comfy.Locale": language}
    theme = request.cookies.get("easel_theme", "")
    if theme in PALETTES and stored.get("Comfy.ColorPalette", "dark") in PALETTES:
        found["Comfy.ColorPalette"] = theme
    return found


def _make_folders(user: Path) -> None:
    """What the editor asks for at every start; it takes an empty answer for one, but its console complains."""
    for name in ("workflows", "subgraphs"):
        (user / name).mkdir(parents=True, exist_ok=True)
    templates = user / "comfy.templates.json"
    if not templates.exists():
        with replacing(templates) as file:
            file.write(b"[]")


def _guarded(answer: Response) -> Response:
    answer.headers["Content-Security-Policy"] = CONTENT_POLICY
    return answer


def _answer(path: Path, name: str, packed: Path, accepted: str) -> Response:
    """The file, packed for those who are far away: the editor is 23 MB of scripts."""
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    headers = {"Cache-Control": FOREVER if name.startswith("assets/") else "no-cache"}
    if "gzip" in accepted and path.suffix in _PACKED and path.stat().st_size >= _SMALLEST_PACKED:
        small = packed / f"{name}.gz"
        if not small.is_file():
            with replacing(small) as out:
                out.write(gzip.compress(path.read_bytes(), 6, mtime=0))
        headers |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        return FileResponse(small, media_type=kind, headers=headers)
    return FileResponse(path, media_type=kind, headers=headers)
