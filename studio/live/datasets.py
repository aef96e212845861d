"""Datasets for the page: what the Dataset tab shows. What people do to them is in dataset_actions."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from engine.dataset.export import import_sidecars
from engine.dataset.library import Dataset, Library
from engine.dataset.mask_files import import_masks
from engine.dataset.pictures import scan
from engine.dataset.query import BadFilter
from engine.dataset.view import View
from engine.errors import FileError
from studio.app import App
from studio.comfy.requests import json_object
from studio.demo.dataset import NAME as DEMO
from studio.demo.dataset import make_demo_dataset
from studio.live import dataset_files, dataset_show
from studio.live.dataset_actions import act
from studio.live.dataset_asks import Asked, TagLists, ask
from studio.live.dataset_training import look, training
from taggers.catalogue import InstalledTagger, installed
from taggers.forms import captioner_rows
from taggers.presets import preset, preset_names

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
        report = scan(dataset)
        view = View(dataset.store)
        if not view.sources():
            import_sidecars(dataset, view)
        if report.masks and not dataset.store.events(1):
            import_masks(dataset)
        self._open[dataset.name] = dataset, view


def routes(app: App) -> list[BaseRoute]:
    opened, lists = OpenDatasets(Library(app.workspace)), TagLists(app.workspace)

    async def listed(request: Request) -> Response:
        if request.method == "POST":
            body = await json_object(request)
            name = await run_in_threadpool(opened.create, str(body.get("name", "")), str(body.get("folder", "")))
            app.drafts.put("dataset", {"current": name})
            return JSONResponse({"name": name}, 201)
        return JSONResponse(await run_in_threadpool(_list, app, opened.library, lists))

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
            return JSONResponse(await run_in_threadpool(lambda: dataset_show.shown(*opened.get(name), words, order)))
        except BadFilter as error:  # words that are still being typed are no failure
            return JSONResponse({"wrong": error.to_json()})

    async def captions(request: Request) -> Response:
        name, wanted = request.path_params["name"], request.query_params.get("ids", "")
        ids = [int(i) for i in wanted.split(",") if i.isdecimal() and len(i) < 18][:MOST_CAPTIONS]
        return JSONResponse(await run_in_threadpool(lambda: dataset_show.captions(*opened.get(name), ids)))

    async def about(request: Request) -> Response:
        name, picture = request.path_params["name"], request.path_params["id"]
        return JSONResponse(await run_in_threadpool(lambda: dataset_show.about(*opened.get(name), picture)))

    async def question(request: Request) -> Response:
        name, what = request.path_params["name"], request.path_params["what"]
        asked = dict(request.query_params)
        return JSONResponse(await run_in_threadpool(lambda: ask(what, Asked(*opened.get(name), lists, asked))))

    async def trained(request: Request) -> Response:
        body = await json_object(request)

        def answer() -> dict[str, Any]:
            dataset, view = opened.get(request.path_params["name"])
            if request.path_params["what"] == "look":
                return look(app, dataset, body)
            return training(app, dataset, view, dict(body.get("changes") or {}))

        return JSONResponse(await run_in_threadpool(answer))

    async def change(request: Request) -> Response:
        body = await json_object(request)
        name, action = request.path_params["name"], request.path_params["action"]
        return JSONResponse(await run_in_threadpool(lambda: act(action, app.workspace, *opened.get(name), body)))

    return [
        Route("/datasets", listed, methods=["GET", "POST"]),
        Route("/datasets/demo", demo, methods=["POST"]),
        Route("/datasets/draft", draft, methods=["POST"]),
        Route("/datasets/{name}", show),
        Route("/datasets/{name}/captions", captions, methods=["GET"]),
        Route("/datasets/{name}/about/{id:int}", about),
        Route("/datasets/{name}/ask/{what}", question),
        Route("/datasets/{name}/train/{what}", trained, methods=["POST"]),
        *dataset_files.routes(app, opened.get),
        Route("/datasets/{name}/{action}", change, methods=["POST"]),
    ]


def _list(app: App, library: Library, lists: TagLists) -> dict[str, Any]:
    taggers = [*(_tagger(one) for one in installed(app.workspace)), *captioner_rows(app.workspace)]
    presets = [{"name": name, **preset(name)} for name in preset_names()]
    draft = app.drafts.get("dataset")
    return {
        "names": library.names(),
        "demo": DEMO,
        "taggers": taggers,
        "presets": presets,
        "lists": lists.names(),
        "draft": draft,
    }


def _tagger(one: InstalledTagger) -> dict[str, Any]:
    try:
        return {"name": one.name, "title": f"{one.name} ({one.spec().title})", "thresholds": one.thresholds()}
    except FileError as error:
        return {"name": one.name, "title": one.name, "thresholds": {}, "error": error.to_json()}
