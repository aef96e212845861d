"""What clients ask about model files: names by folder, metadata, size and time, a picture of a model."""

from __future__ import annotations

import base64
import binascii
import io
import json
import os
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from engine.errors import EaselError, NotFound
from engine.workspace import MODEL_FOLDERS, Workspace
from studio.app import App
from studio.comfy.requests import empty
from studio.decoding import shown

# Folders of ComfyUI that nothing here reads yet: clients that ask for them get an empty list, not an error.
UNUSED_FOLDERS = (
    "gligen",
    "custom_nodes",
    "hypernetworks",
    "photomaker",
    "classifiers",
    "model_patches",
    "audio_encoders",
)
LONGEST_HEADER = 100 * 2**20
PREVIEW_SIDE = 512
_PREVIEW_NAMES = (".preview.png", ".png", ".jpg", ".jpeg", ".webp", ".preview.jpg", ".preview.webp")
_THUMBNAIL_KEYS = ("modelspec.thumbnail", "ssmd_cover_images")


def routes(app: App) -> list[BaseRoute]:
    workspace = app.workspace

    def models(request: Request) -> Response:
        return JSONResponse(folder_names())

    def models_in(request: Request) -> Response:
        folder = request.path_params["folder"]
        if folder not in MODEL_FOLDERS:
            return JSONResponse([]) if folder in UNUSED_FOLDERS else empty(404)
        return JSONResponse(workspace.list_models(folder))

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
        return JSONResponse([{"name": name, "folders": folders} for name, folders in folder_paths(workspace).items()])

    def experiment_models_in(request: Request) -> Response:
        folder = request.path_params["folder"]
        if folder in UNUSED_FOLDERS:
            return JSONResponse([])
        try:
            return JSONResponse(_files_of(workspace, folder))
        except NotFound:
            return empty(404)

    async def preview(request: Request) -> Response:
        folder, index, name = (request.path_params[key] for key in ("folder", "index", "name"))
        try:
            path = workspace.model_path(folder, name)
            if not _is_under(path, workspace.model_roots(folder), index):
                return empty(404)
            data = await app.decode(_preview_of, path)
        except (EaselError, OSError):
            return empty(404)
        return Response(data, media_type="image/webp") if data else empty(404)

    return [
        Route("/models", models),
        Route("/models/{folder}", models_in),
        Route("/embeddings", embeddings),
        Route("/view_metadata/{folder}", view_metadata),
        Route("/experiment/models", experiment_models),
        Route("/experiment/models/preview/{folder}/{index:int}/{name:path}", preview),
        Route("/experiment/models/{folder}", experiment_models_in),
    ]


def folder_names() -> list[str]:
    return [*MODEL_FOLDERS, *UNUSED_FOLDERS]


def folder_paths(workspace: Workspace) -> dict[str, list[str]]:
    """Where models of each kind are looked for."""
    found = {folder: [str(path) for path in workspace.model_roots(folder)] for folder in MODEL_FOLDERS}
    return found | {folder: [str(workspace.models / folder)] for folder in UNUSED_FOLDERS}


def _metadata(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(LONGEST_HEADER, path.stat().st_size):
            return {}
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            return {}
    found = header.get("__metadata__") if isinstance(header, dict) else None
    return found if isinstance(found, dict) else {}


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


def _is_under(path: Path, roots: list[Path], index: int) -> bool:
    return 0 <= index < len(roots) and path.is_relative_to(roots[index])


def _preview_of(path: Path) -> bytes:
    """A picture that lies beside the model under its name, else the one in its metadata; nothing when there is none."""
    stem = path.with_suffix("")
    beside = next((found for end in _PREVIEW_NAMES if (found := Path(f"{stem}{end}")).is_file()), None)
    source: Path | io.BytesIO | None = beside or _thumbnail_in(path)
    if source is None:
        return b""
    out = io.BytesIO()
    shown(source, path.name, longest=PREVIEW_SIDE).save(out, "WEBP", quality=82)
    return out.getvalue()


def _thumbnail_in(path: Path) -> io.BytesIO | None:
    if path.suffix != ".safetensors":
        return None
    metadata = _metadata(path)
    for text in (str(metadata[key]) for key in _THUMBNAIL_KEYS if key in metadata):
        _, _, encoded = text.strip('[]" ').split('"')[0].rpartition("base64,")
        try:
            return io.BytesIO(base64.b64decode(encoded, validate=True))
        except (binascii.Error, ValueError):
            continue
    return None
