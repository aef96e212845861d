"""Datasets for the page: what the Dataset tab shows. What people do to them is in dataset_actions."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from engine.dataset.archives import pack
from engine.dataset.captions import pretty
from engine.dataset.export import caption_of, import_sidecars, rules_of
from engine.dataset.health import health
from engine.dataset.library import Dataset, Library
from engine.dataset.pictures import add_upload, scan, thumbnail
from engine.dataset.query import BadFilter, matching
from engine.dataset.records import RATING, Source
from engine.dataset.review import queue
from engine.dataset.view import TAGGER, Annotation, View
from engine.errors import FileError
from studio.app import App
from studio.comfy.requests import file_body, json_object
from studio.demo.dataset import NAME as DEMO
from studio.demo.dataset import make_demo_dataset
from studio.live.dataset_actions import act
from taggers.catalogue import InstalledTagger, installed
from taggers.presets import preset, preset_names

FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}  # addresses carry the content's hash
MOST_TAGS = 400
MOST_CAPTIONS = 1000  # in one answer


@dataclass
class OpenDatasets:
    """Datasets stay open with their views, so that a filter is answered from memory."""

    library: Library
    _open: dict[str, tuple[Dataset, View]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, name: str) -> tuple[Dataset, View]:
        with self._lock:
            if name not in self._open:
                self._take(self.library.open(name))
            return self._open[name]

    def create(self, name: str, folder: str) -> str:
        dataset = self.library.create(name, Path(folder).expanduser() if folder.strip() else None)
        with self._lock:
            self._take(dataset)
        return dataset.name

    def demo(self) -> str:
        if DEMO not in self.library.names():
            make_demo_dataset(self.library).close()
        return DEMO

    def _take(self, dataset: Dataset) -> None:
        scan(dataset)
        view = View(dataset.store)
        if not view.sources():
            import_sidecars(dataset, view)
        self._open[dataset.name] = dataset, view


def routes(app: App) -> list[BaseRoute]:
    opened = OpenDatasets(Library(app.workspace))

    async def listed(request: Request) -> Response:
        if request.method == "POST":
            body = await json_object(request)
            name = await run_in_threadpool(opened.create, str(body.get("name", "")), str(body.get("folder", "")))
            app.drafts.put("dataset", {"current": name})
            return JSONResponse({"name": name}, 201)
        return JSONResponse(await run_in_threadpool(_list, app, opened.library))

    async def demo(_: Request) -> Response:
        name = await run_in_threadpool(opened.demo)
        app.drafts.put("dataset", {"current": name})
        return JSONResponse({"name": name})

    async def draft(request: Request) -> Response:
        app.drafts.put("dataset", await json_object(request))
        return JSONResponse({})

    async def show(request: Request) -> Response:
        name, query = request.path_params["name"], request.query_params
        words, order = query.get("filter", ""), query.get("order", "")
        try:
            return JSONResponse(await run_in_threadpool(lambda: _show(*opened.get(name), words, order)))
        except BadFilter as error:  # words that are still being typed are no failure
            return JSONResponse({"wrong": error.to_json()})

    async def captions(request: Request) -> Response:
        name, wanted = request.path_params["name"], request.query_params.get("ids", "")
        ids = [int(i) for i in wanted.split(",") if i.isdecimal() and len(i) < 18][:MOST_CAPTIONS]
        return JSONResponse(await run_in_threadpool(lambda: _captions(*opened.get(name), ids)))

    async def about(request: Request) -> Response:
        name, picture = request.path_params["name"], request.path_params["id"]
        return JSONResponse(await run_in_threadpool(lambda: _about(*opened.get(name), picture)))

    async def file(request: Request) -> Response:
        def find() -> Path:
            dataset, _ = opened.get(request.path_params["name"])
            picture = dataset.store.picture(request.path_params["id"])
            small = request.path_params["size"] == "thumb"
            return thumbnail(dataset, picture) if small else dataset.path(picture.path)

        return FileResponse(await run_in_threadpool(find), headers=FOREVER)

    async def upload(request: Request) -> Response:
        sent, _ = await file_body(request, "file", app.settings.limits.upload_mb)
        data = await sent.read()
        dataset, _ = await run_in_threadpool(opened.get, request.path_params["name"])
        return JSONResponse({"name": await run_in_threadpool(add_upload, dataset, sent.filename or "", data)})

    async def change(request: Request) -> Response:
        body = await json_object(request)
        name, action = request.path_params["name"], request.path_params["action"]
        return JSONResponse(await run_in_threadpool(lambda: act(action, app.workspace, *opened.get(name), body)))

    async def packed(request: Request) -> Response:
        name = request.path_params["name"]
        path = await run_in_threadpool(lambda: _packed(app, *opened.get(name)))
        return FileResponse(path, filename=f"{name}.zip", background=BackgroundTask(path.unlink))

    return [
        Route("/datasets", listed, methods=["GET", "POST"]),
        Route("/datasets/demo", demo, methods=["POST"]),
        Route("/datasets/draft", draft, methods=["POST"]),
        Route("/datasets/{name}", show),
        Route("/datasets/{name}/captions", captions),
        Route("/datasets/{name}/zip", packed),
        Route("/datasets/{name}/about/{id:int}", about),
        Route("/datasets/{name}/upload", upload, methods=["POST"]),
        Route("/datasets/{name}/{size}/{id:int}", file),
        Route("/datasets/{name}/{action}", change, methods=["POST"]),
    ]


def _list(app: App, library: Library) -> dict[str, Any]:
    taggers = [_tagger(one) for one in installed(app.workspace)]
    presets = [{"name": name, **preset(name)} for name in preset_names()]
    draft = app.drafts.get("dataset")
    return {"names": library.names(), "demo": DEMO, "taggers": taggers, "presets": presets, "draft": draft}


def _tagger(one: InstalledTagger) -> dict[str, Any]:
    try:
        return {"name": one.name, "title": f"{one.name} ({one.spec().title})", "thresholds": one.thresholds()}
    except FileError as error:
        return {"name": one.name, "title": one.name, "thresholds": {}, "error": error.to_json()}


def _show(dataset: Dataset, view: View, words: str, order: str) -> dict[str, Any]:
    pictures, mask = view.pictures(), matching(view, words)
    shown = [picture for picture, kept in zip(pictures, mask, strict=True) if kept]
    if order == "review":
        place = {picture: i for i, picture in enumerate(queue(view))}
        shown.sort(key=lambda picture: place[picture.id])
    events = dataset.store.events(200)
    findings = health(dataset, view).findings
    return {
        "total": len(pictures),
        "pictures": [[p.id, p.hash, p.name] for p in shown],
        "tags": [
            {"name": c.name, "shown": pretty(c.name), "n": c.pictures, "filter": f"tag:{_quoted(c.name)}"}
            for c in view.counts(mask)[:MOST_TAGS]
            if c.category != RATING
        ],
        "rules": rules_of(dataset).model_dump(mode="json"),
        "sources": [_source(source) for source in view.sources() if source.tool.startswith(TAGGER)],
        "findings": [asdict(finding) for finding in findings],
        "problems": [{"path": row.path, **(row.problem or {})} for row in dataset.store.problems()],
        "undo": next((e.title for e in events if e.state == "done"), ""),
        "redo": next((e.title for e in reversed(events) if e.state == "undone"), ""),
    }


def _source(source: Source) -> dict[str, Any]:
    policy = source.policy
    return {
        "id": source.id,
        "name": source.tool.removeprefix(TAGGER),
        "thresholds": dict(policy.thresholds),
        "mcut": list(policy.mcut),
        "enabled": policy.enabled,
    }


def _captions(dataset: Dataset, view: View, ids: Sequence[int]) -> dict[int, str]:
    """What the trainer would read for these pictures: those that the page shows now."""
    rules, wanted = rules_of(dataset), set(ids)
    return {p.id: caption_of(view, rules, p)[:160] for p in view.pictures() if p.id in wanted}


def _packed(app: App, dataset: Dataset, view: View) -> Path:
    folder = app.workspace.cache / "zip"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".zip", delete=False) as file:
        path = Path(file.name)
    pack(dataset, view, path)
    return path


def _about(dataset: Dataset, view: View, picture_id: int) -> dict[str, Any]:
    picture = dataset.store.picture(picture_id)
    current = dataset.store.current_caption(picture_id)
    annotations = view.annotations(picture_id, floor=0.1)
    return {
        "id": picture.id,
        "name": picture.name,
        "hash": picture.hash,
        "width": picture.width,
        "height": picture.height,
        "caption": caption_of(view, rules_of(dataset), picture),
        "text": current.text if current else "",
        "annotations": [_annotation(one) for one in sorted(annotations, key=_rank)],
    }


def _rank(one: Annotation) -> tuple[bool, bool, float]:
    """Ratings last, then what does not count, then by score."""
    return one.category == RATING, not one.present, -one.score


def _annotation(one: Annotation) -> dict[str, Any]:
    opinions = [
        {"tool": o.tool, "short": o.tool.rsplit(":", 1)[-1].rsplit("/", 1)[-1], "score": round(o.score, 4)}
        for o in one.opinions
    ]
    return {
        "name": one.name,
        "shown": pretty(one.name),
        "category": one.category,
        "present": one.present,
        "decision": one.decision,
        "score": round(one.score, 4),
        "opinions": opinions,
    }


def _quoted(name: str) -> str:
    return f'"{name}"' if any(character in name for character in ' ()"') else name
