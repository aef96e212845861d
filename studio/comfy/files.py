"""Pictures in and out: /view, /upload/image, /upload/mask."""

from __future__ import annotations

import hashlib
import io
import json
import mimetypes
import re
import warnings
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from engine.errors import NotFound, OutsideWorkspace, PictureError
from engine.workspace import Workspace, replacing
from studio.app import App
from studio.comfy.requests import empty, file_body, folder_of, path_in, plain_name

LONGEST_SIDE = 16384
PICTURES = {"PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "MPO"}
_ANNOTATION = re.compile(r"^(.*) \[(output|input|temp)\]$")
_SHOWN = ("image/", "video/", "audio/", "model/", "application/json", "text/plain")
_PREVIEW_FORMATS = {"webp": "WEBP", "jpeg": "JPEG", "jpg": "JPEG"}


class NotAPicture(PictureError):
    en = "'{name}' is not a picture that can be read ({reason})."
    zh = "“{name}”不是可读取的图片（{reason}）。"


class PictureTooLarge(PictureError):
    en = "'{name}' is {width} x {height} pixels. A side may have at most {limit}."
    zh = "“{name}”为 {width} x {height} 像素，每边最多 {limit}。"


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
            data, kind = await run_in_threadpool(_rendered, path, preview, channel)
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
        masked = await run_in_threadpool(_with_alpha_of, file.file, original, file.filename or "")
        return JSONResponse(await run_in_threadpool(_keep, workspace, masked, file.filename or "", fields))

    return [
        Route("/view", view),
        Route("/upload/image", upload_image, methods=["POST"]),
        Route("/upload/mask", upload_mask, methods=["POST"]),
    ]


def check_picture(file: IO[bytes], name: str) -> tuple[int, int]:
    """Read the header only. Returns (width, height); raises NotAPicture or PictureTooLarge. Rewinds the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as picture:
                size, kind = picture.size, picture.format
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        raise NotAPicture(name=name[:80], reason=str(error)[:120] or type(error).__name__) from error
    finally:
        file.seek(0)
    if kind not in PICTURES:
        raise NotAPicture(name=name[:80], reason=f"{kind} is not one of {', '.join(sorted(PICTURES))}")
    if max(size) > LONGEST_SIDE:
        raise PictureTooLarge(name=name[:80], width=size[0], height=size[1], limit=LONGEST_SIDE)
    return size


def _asked_for(workspace: Workspace, filename: str, query: dict[str, str]) -> Path:
    annotated = _ANNOTATION.match(filename)
    if annotated:
        filename, query = annotated[1], {**query, "type": annotated[2]}
    if not filename:
        raise NotFound(what="picture", name="", remedy="Send filename=.")
    root = folder_of(workspace, query.get("type", "output"))
    path = path_in(root, query.get("subfolder", ""), filename)
    if any(part.startswith(".") for part in path.relative_to(root).parts) or not path.is_file():
        raise NotFound(what="picture", name=filename[:80], remedy="It may have been moved or deleted.")
    return path


def _rendered(path: Path, preview: str | None, channel: str) -> tuple[bytes, str]:
    with path.open("rb") as file:
        check_picture(file, path.name)
        try:
            with Image.open(file) as picture:
                picture.load()
                shown = picture.convert("RGBA") if picture.has_transparency_data else picture.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise NotAPicture(name=path.name, reason=str(error)[:120]) from error
    if channel == "rgb":
        shown = shown.convert("RGB")
    elif channel == "a":
        alpha = shown.getchannel("A") if shown.mode == "RGBA" else Image.new("L", shown.size, 255)
        shown = Image.new("RGBA", shown.size)
        shown.putalpha(alpha)
    name, _, quality = (preview or "png").partition(";")
    kind = _PREVIEW_FORMATS.get(name.lower(), "WEBP" if preview else "PNG")
    if kind == "JPEG":
        shown = shown.convert("RGB")
    options: dict[str, Any] = {"quality": min(100, max(1, int(quality)))} if quality.isdigit() else {}
    out = io.BytesIO()
    shown.save(out, kind, **({} if kind == "PNG" else {"quality": 90, **options}))
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
        raise NotFound(what="picture", name=reference[:80], remedy="original_ref must name the picture of the mask.")
    query = {key: value for key, value in row.items() if isinstance(value, str)}
    return _asked_for(workspace, row["filename"], {"type": "output", **query})


def _with_alpha_of(mask: IO[bytes], original: Path, name: str) -> IO[bytes]:
    """The original picture with the uploaded one's alpha, as PNG; its metadata is kept."""
    check_picture(mask, name)
    with original.open("rb") as file:
        check_picture(file, original.name)
        with Image.open(file) as base, Image.open(mask) as drawn:
            info = PngInfo()
            for key, value in getattr(base, "text", {}).items():
                info.add_text(key, value)
            merged = base.convert("RGBA")
            if drawn.size != merged.size:
                raise NotAPicture(name=name[:80], reason=f"a mask of {drawn.size} for a picture of {merged.size}")
            merged.putalpha(drawn.convert("RGBA").getchannel("A"))
            out = io.BytesIO()
            merged.save(out, "PNG", compress_level=4, pnginfo=info)
    out.seek(0)
    return out


def _named(name: str) -> dict[str, str]:
    plain = "".join(c if 32 <= ord(c) < 127 and c not in '"\\' else "_" for c in name)
    return {"Content-Disposition": f"inline; filename=\"{plain}\"; filename*=UTF-8''{quote(name)}"}
