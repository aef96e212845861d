"""Training runs for the page: the loss curve and the samples of a run's folder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from engine.errors import GONE, NotFound
from engine.workspace import inside
from studio.app import App
from studio.comfy.requests import plain_name

POINTS = 600  # of a curve; more would not be seen
SAMPLE = re.compile(r"step(\d+)_(\d+)\.(png|webp)$")


def routes(app: App) -> list[BaseRoute]:
    def folder(request: Request) -> Path:
        """A run that waits has no folder yet; it has no metrics and no samples, which is no error."""
        return inside(app.workspace.runs, plain_name(request.path_params["name"]))

    async def metrics(request: Request) -> Response:
        return JSONResponse({"rows": await run_in_threadpool(read_metrics, folder(request) / "metrics.jsonl")})

    async def samples(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(list_samples, folder(request) / "samples"))

    async def sample(request: Request) -> Response:
        path = folder(request) / "samples" / plain_name(request.path_params["file"])
        if not path.is_file():
            raise NotFound(what="sample", what_zh="样图", name=path.name, **GONE)
        return FileResponse(path, headers={"Cache-Control": "private, max-age=31536000, immutable"})

    return [
        Route("/runs/{name}/metrics", metrics),
        Route("/runs/{name}/samples", samples),
        Route("/runs/{name}/samples/{file}", sample),
    ]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl that have a loss; of a long run every n-th, each the mean of the n before it."""
    rows = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # the line being written now
            if "loss" in row:
                rows.append(row)
    size = -(-len(rows) // POINTS) or 1
    groups = [rows[i : i + size] for i in range(0, len(rows), size)]
    return [{**group[-1], "loss": sum(row["loss"] for row in group) / len(group)} for group in groups]


def list_samples(folder: Path) -> dict[str, Any]:
    """{"steps": [...], "prompts": [...], "pictures": {"step/prompt": file}}; prompts.json holds the words."""
    pictures = {}
    for path in folder.glob("step*_*.*"):
        if found := SAMPLE.match(path.name):
            pictures[f"{int(found[1])}/{int(found[2])}"] = path.name
    count = 1 + max((int(key.split("/")[1]) for key in pictures), default=-1)
    try:
        words = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        words = []
    prompts = [words[i] if i < len(words) else f"#{i + 1}" for i in range(count)]
    return {"steps": sorted({int(key.split("/")[0]) for key in pictures}), "prompts": prompts, "pictures": pictures}
