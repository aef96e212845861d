"""Pictures in and out: /view, /upload/image, /upload/mask."""

from __future__ import annotations

import hashlib
import io
import json
import mimetypes
import re
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from engine.errors import GONE, NotFound, OutsideWorkspace
from engine.workspace import Workspace, replacing
from studio.app import App
from studio.comfy.requests import empty, file_body, folder_of, path_in, plain_name
from studio.decoding import NotAPicture, opened, shown

LONGEST_WEBP = 16383  # pixels of a side: the format ends there
_ANNOTATION = re.compile(r"^(.*) \[(output|input|temp)\]$")
_SHOWN = ("image/", "video/", "audio/", "model/", "application/json", "text/plain")
_PREVIEW_FORMATS = {"webp": "WEBP", "jpeg": "JPEG", "jpg": "JPEG"}


def routes(app: App) -> list[BaseRoute]:
    workspace = app.workspace
    limit = app.settings.limits.upload_mb

    async def view(request: Request) -> Response:
        try:
            path = _asked_for(workspace, request.query_params.get("filename", ""), dict(request.query_params))
        except OutsideWorkspace:
            return empty(400)
        except NotFound:
            return empty(404)
        preview, channel = request.query_params.get("preview"), request.query_params.get("channel", "rgba")
        if preview or channel in ("rgb", "a"):
            data, kind = await app.decode(_rendered, path, preview, channel)
            return Response(data, media_type=kind, headers=_named(path.name))
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        if not kind.startswith(_SHOWN) or "svg" in kind:  # a page or a script from output/ must not run on our origin
            kind = "application/octet-stream"
        return FileResponse(path, media_type=kind, headers=_named(path.name))

    async def upload_image(request: Request) -> Response:
        file, fields = await file_body(request, "image", limit)
        return JSONResponse(await run_in_threadpool(_keep, workspace, file.file, file.filename or "", fields))

    async def upload_mask(request: Request) -> Response:
        file, fields = await file_body(request, "image", limit)
        original = _original(workspace, fields.get("original_ref", ""))
        masked = await app.decode(_with_alpha_of, file.file, original, file.filename or "")
        return JSONResponse(await run_in_threadpool(_keep, workspace, masked, file.filename or "", fields))

    return [
        Route("/view", view),
        Route("/upload/image", upload_image, methods=["POST"]),
        Route("/upload/mask", upload_mask, methods=["POST"]),
    ]


def check_picture(file: IO[bytes], name: str) -> tuple[int, int]:
    """Read the header only. Returns (width, height); raises NotAPicture or PictureTooLarge. Rewinds the file."""
    try:
        with opened(file, name) as picture:
            return picture.size
    finally:
        file.seek(0)


def _asked_for(workspace: Workspace, filename: str, query: dict[str, str]) -> Path:
    annotated = _ANNOTATION.match(filename)
    if annotated:
        filename, query = annotated[1], {**query, "type": annotated[2]}
    if not filename:
        raise NotFound(
            what="picture", what_zh="图片", name="", remedy="Send filename=.", remedy_zh="请提供 filename=。"
        )
    root = folder_of(workspace, query.get("type", "output"))
    path = path_in(root, query.get("subfolder", ""), filename)
    if any(part.startswith(".") for part in path.relative_to(root).parts) or not path.is_file():
        raise NotFound(what="picture", what_zh="图片", name=filename[:80], **GONE)
    return path


def _rendered(path: Path, preview: str | None, channel: str) -> tuple[bytes, str]:
    picture = shown(path, path.name)
    if channel == "rgb":
        picture = picture.convert("RGB")
    elif channel == "a":
        alpha = picture.getchannel("A") if picture.mode == "RGBA" else Image.new("L", picture.size, 255)
        picture = Image.new("RGBA", picture.size)
        picture.putalpha(alpha)
    name, _, quality = (preview or "png").partition(";")
    kind = _PREVIEW_FORMATS.get(name.lower(), "WEBP" if preview else "PNG")
    if kind == "JPEG":
        picture = picture.convert("RGB")
    if kind == "WEBP":
        picture.thumbnail((LONGEST_WEBP, LONGEST_WEBP))
    said = quality.isdecimal() and len(quality) < 5
    options: dict[str, Any] = {"quality": min(100, max(1, int(quality)))} if said else {}
    out = io.BytesIO()
    picture.save(out, kind, **({} if kind == "PNG" else {"quality": 90, **options}))
    return out.getvalue(), f"image/{kind.lower()}"


def _keep(workspace: Workspace, file: IO[bytes], filename: str, fields: dict[str, str]) -> dict[str, str]:
    """Store an upload. The same bytes under the same name are kept once; other bytes get ' (1)', ' (2)' ..."""
    name = plain_name(filename)
    check_picture(file, name)
    kind, subfolder = fields.get("type") or "input", fields.get("subfolder", "").replace("\\", "/").strip("/")
    folder = path_in(folder_of(workspace, kind), fields.get("subfolder", ""))
    path = path_in(folder, name) if fields.get("overwrite", "").lower() in ("true", "1") else _free(folder, name, file)
    with replacing(path) as out:
        file.seek(0)
        while block := file.read(2**20):
            out.write(block)
    return {"name": path.name, "subfolder": subfolder, "type": kind}


def _free(folder: Path, name: str, file: IO[bytes]) -> Path:
    digest = _sha256(file)
    path, number = path_in(folder, name), 0
    while path.exists():
        with path.open("rb") as other:
            if _sha256(other) == digest:
                return path
        number += 1
        path = folder / f"{Path(name).stem} ({number}){Path(name).suffix}"
    return path


def _sha256(file: IO[bytes]) -> bytes:
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(2**20):
        digest.update(block)
    return digest.digest()


def _original(workspace: Workspace, reference: str) -> Path:

    try:
        row = json.loads(reference)
    except ValueError:
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("filename"), str):
        raise NotFound(
            what="picture",
            what_zh="图片",
            name=reference[:80],
            remedy="original_ref must name the picture of the mask.",
            remedy_zh="original_ref 必须指明遮罩所属的图片。",
        )
    query = {key: value for key, value in row.items() if isinstance(value, str)}
    return _asked_for(workspace, row["filename"], {"type": "output", **query})


def _with_alpha_of(mask: IO[bytes], original: Path, name: str) -> IO[bytes]:
    """The original picture with the uploaded one's alpha, as PNG; its metadata is kept."""
    drawn_size = check_picture(mask, name)
    with opened(original, original.name) as base:
        info = PngInfo()
        for key, value in getattr(base, "text", {}).items():
            info.add_text(key, value)
        if drawn_size != base.size:
            raise NotAPicture(name=name[:80], reason=f"a mask of {drawn_size} for a picture of {base.size}")
    merged = shown(original, original.name).convert("RGBA")
    merged.putalpha(shown(mask, name).convert("RGBA").getchannel("A"))
    out = io.BytesIO()
    merged.save(out, "PNG", compress_level=4, pnginfo=info)
    out.seek(0)
    return out


def _named(name: str) -> dict[str, str]:
    plain = "".join(c if 32 <= ord(c) < 127 and c not in '"\\' else "_" for c in name)
    return {"Content-Disposition": f"inline; filename=\"{plain}\"; filename*=UTF-8''{quote(name)}"}
