"""Workflows to start from, where editors look for them: /templates/index.json, the files, and a drawing of each."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

from PIL import Image, ImageDraw
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from engine.errors import EaselError, Language
from engine.graph.layout import SOCKET, TITLE
from studio.app import App
from studio.comfy.requests import empty
from tabs import workbench

SIZE = (480, 320)
GROUND, CARD, HEAD, LINK = "#1b1f2b", "#333a4d", "#6366f1", "#8b93a7"


def routes(app: App) -> list[BaseRoute]:
    def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name in ("index.json", "index.zh.json"):
            return JSONResponse(index("zh" if name == "index.zh.json" else "en"))
        stem, _, suffix = name.rpartition(".")
        try:
            if suffix == "json":
                return JSONResponse(workbench.template(stem))
            if suffix == "png":
                return Response(drawing(stem.removesuffix("-1")), media_type="image/png")
        except EaselError:
            return empty(404)
        return empty(404)

    def of_packs(request: Request) -> Response:
        return JSONResponse({})  # packs bring theirs in folders that only the worker knows

    return [Route("/templates/{name:path}", file), Route("/workflow_templates", of_packs)]


def index(language: Language) -> list[dict[str, Any]]:
    """Categories with their templates, as the official editor reads them."""
    end = "_zh" if language == "zh" else ""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in workbench.templates():
        shown = {
            "name": row["name"],
            "title": row[f"title{end}"],
            "description": row[f"description{end}"],
            "mediaType": "image",
            "mediaSubtype": "png",
            "tags": [row["family"]],
            "models": [row["family"]],
            "openSource": True,
        }
        groups.setdefault(row["family"], []).append(shown)
    return [
        {"moduleName": "default", "title": family, "type": "image", "templates": rows}
        for family, rows in groups.items()
    ]


@cache
def drawing(name: str) -> bytes:
    """A small picture of the graph, as PNG. Raises NotFound."""
    workflow = workbench.template(name)
    nodes = {node["id"]: (*node["pos"], *node["size"]) for node in workflow["nodes"]}
    left, top = min(n[0] for n in nodes.values()) - 40, min(n[1] for n in nodes.values()) - TITLE - 40
    right, bottom = max(n[0] + n[2] for n in nodes.values()) + 40, max(n[1] + n[3] for n in nodes.values()) + 40
    scale = min(SIZE[0] / (right - left), SIZE[1] / (bottom - top))
    shift = ((SIZE[0] - (right - left) * scale) / 2, (SIZE[1] - (bottom - top) * scale) / 2)

    def at(x: float, y: float) -> tuple[float, float]:
        return (x - left) * scale + shift[0], (y - top) * scale + shift[1]

    picture = Image.new("RGB", SIZE, GROUND)
    draw = ImageDraw.Draw(picture)
    for _, origin, slot, target, place, _ in workflow["links"]:
        (x, y, width, _), (u, v, _, _) = nodes[origin], nodes[target]
        draw.line((*at(x + width, y + 14 + SOCKET * slot), *at(u, v + 14 + SOCKET * place)), LINK, 2)
    for x, y, width, height in nodes.values():
        draw.rounded_rectangle((*at(x, y - TITLE), *at(x + width, y + height)), 4, CARD)
        draw.rounded_rectangle((*at(x, y - TITLE), *at(x + width, y)), 3, HEAD)
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()
