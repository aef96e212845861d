"""Pictures for the page: the gallery's list, thumbnails, and what a picture was made from."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from engine.errors import GONE, NotFound, PictureError
from engine.graph.metadata import read_metadata
from engine.workspace import is_text, replacing
from studio.app import App
from studio.comfy.requests import folder_of, path_in
from studio.decoding import opened, shown

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
THUMBNAIL = 384  # pixels of the longer side
MOST = 20_000


def routes(app: App) -> list[BaseRoute]:
    def chosen(request: Request) -> Path:
        query = request.query_params
        root = folder_of(app.workspace, query.get("type") or "output")
        path = path_in(root, query.get("subfolder", ""), query.get("filename", ""))
        if not path.is_file():
            raise NotFound(what="picture", what_zh="图片", name=path.name, **GONE)
        return path

    async def listed(request: Request) -> Response:
        words = request.query_params.get("q", "").lower()
        return JSONResponse({"pictures": await run_in_threadpool(list_pictures, app.workspace.output, words)})

    async def thumbnail(request: Request) -> Response:
        path = await app.decode(make_thumbnail, chosen(request), app.workspace.cache / "thumbnails")
        return FileResponse(path, headers={"Cache-Control": "private, max-age=31536000, immutable"})

    async def about(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(describe, chosen(request)))

    return [Route("/pictures", listed), Route("/thumb", thumbnail), Route("/picture", about)]


def list_pictures(root: Path, words: str = "") -> list[dict[str, Any]]:
    """Newest first, at most MOST. `words` must occur in the name or, for the newest thousand, in the prompt."""
    found: list[tuple[float, str, str]] = []
    for folder, _, files in os.walk(root):
        subfolder = Path(folder).relative_to(root).as_posix()
        for name in files:
            if name.lower().endswith(SUFFIXES) and not name.startswith(".") and is_text(f"{subfolder}/{name}"):
                with suppress(OSError):  # gone since it was listed, or a link to nowhere
                    time = os.stat(os.path.join(folder, name)).st_mtime
                    found.append((time, name, "" if subfolder == "." else subfolder))
    found.sort(reverse=True)
    rows = [{"filename": n, "subfolder": s, "type": "output", "mtime": int(m * 1000)} for m, n, s in found]
    if words:
        rows = [row for i, row in enumerate(rows) if _matches(root, row, words, deep=i < 1000)]
    return rows[:MOST]


def make_thumbnail(path: Path, folder: Path) -> Path:
    """A small WebP beside the cache; made once for every version of the picture."""
    stat = path.stat()
    name = hashlib.blake2b(f"{path}|{stat.st_mtime_ns}|{stat.st_size}".encode(), digest_size=16).hexdigest()
    made = folder / name[:2] / f"{name}.webp"
    if not made.is_file():
        small = shown(path, path.name, longest=THUMBNAIL)
        with replacing(made) as file:
            small.save(file, "WEBP", quality=82)
    return made


def describe(path: Path) -> dict[str, Any]:
    found = read_metadata(path)
    with opened(path, path.name) as picture:
        width, height = picture.size
    return {
        "width": width,
        "height": height,
        "bytes": path.stat().st_size,
        "parameters": found.parameters,
        "has_graph": found.prompt is not None,
    }


def _matches(root: Path, row: dict[str, Any], words: str, *, deep: bool) -> bool:
    if words in row["filename"].lower():
        return True
    try:
        return deep and words in read_metadata(root / row["subfolder"] / row["filename"]).parameters.lower()
    except PictureError:
        return False
