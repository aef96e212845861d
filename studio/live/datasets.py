"""Datasets for the page: what the Dataset tab shows. What people do to them is in dataset_actions. Routes only."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from engine.dataset.query import BadFilter
from engine.errors import FileError
from studio.app import App
from studio.comfy.requests import json_object
from studio.live import dataset_exchange, dataset_files, dataset_show
from studio.live.dataset_actions import act
from studio.live.dataset_asks import Asked, TagLists, ask
from studio.live.dataset_opening import DEMO, OpenDatasets
from studio.live.dataset_training import look, resolution, training
from taggers.catalogue import InstalledTagger, installed
from taggers.forms import captioner_rows
from taggers.presets import preset, preset_names

MOST_CELLS = 1000  # in one answer


def routes(app: App) -> list[BaseRoute]:
    opened, lists = OpenDatasets(app), TagLists(app.workspace)
    return [
        *_made(app, opened, lists),
        *_shown(app, opened, lists),
        *dataset_exchange.routes(app, opened.get),
        *dataset_files.routes(app, opened.get),
        *_changed(app, opened),  # last: their addresses fit the others'
    ]


def _made(app: App, opened: OpenDatasets, lists: TagLists) -> list[BaseRoute]:
    """Which datasets there are, and new ones."""

    async def listed(request: Request) -> Response:
        if request.method == "POST":
            body = await json_object(request)
            name = await run_in_threadpool(opened.create, str(body.get("name", "")), str(body.get("folder", "")))
            app.drafts.put("dataset", {"current": name})
            return JSONResponse({"name": name}, 201)
        return JSONResponse(await run_in_threadpool(_list, app, opened, lists))

    async def demo(_: Request) -> Response:
        name = await run_in_threadpool(opened.demo)
        app.drafts.put("dataset", {"current": name})
        return JSONResponse({"name": name})

    async def draft(request: Request) -> Response:
        app.drafts.put("dataset", await json_object(request))
        return JSONResponse({})

    return [
        Route("/datasets", listed, methods=["GET", "POST"]),
        Route("/datasets/demo", demo, methods=["POST"]),
        Route("/datasets/draft", draft, methods=["POST"]),
    ]


def _shown(app: App, opened: OpenDatasets, lists: TagLists) -> list[BaseRoute]:
    """Questions about one dataset."""

    async def show(request: Request) -> Response:
        name, query = request.path_params["name"], request.query_params
        words, order = query.get("filter", ""), query.get("order", "")
        try:
            return JSONResponse(await run_in_threadpool(lambda: dataset_show.shown(*opened.get(name), words, order)))
        except BadFilter as error:  # words that are still being typed are no failure
            return JSONResponse({"wrong": error.to_json()})

    async def cells(request: Request) -> Response:
        name, wanted = request.path_params["name"], request.query_params.get("ids", "")
        ids = [int(i) for i in wanted.split(",") if i.isdecimal() and len(i) < 18][:MOST_CELLS]
        return JSONResponse(await run_in_threadpool(lambda: dataset_show.cells(*opened.get(name), ids)))

    async def about(request: Request) -> Response:
        name, picture = request.path_params["name"], request.path_params["id"]
        return JSONResponse(await run_in_threadpool(lambda: dataset_show.about(*opened.get(name), picture)))

    async def question(request: Request) -> Response:
        name, what = request.path_params["name"], request.path_params["what"]
        asked = dict(request.query_params)

        def answer() -> Any:
            return ask(what, Asked(*opened.get(name), lists, asked, resolution(app)))

        return JSONResponse(await run_in_threadpool(answer))

    return [
        Route("/datasets/{name}", show),
        Route("/datasets/{name}/cells", cells),
        Route("/datasets/{name}/about/{id:int}", about),
        Route("/datasets/{name}/ask/{what}", question),
    ]


def _changed(app: App, opened: OpenDatasets) -> list[BaseRoute]:
    """What is done with one dataset."""

    async def trained(request: Request) -> Response:
        body = await json_object(request)

        def answer() -> dict[str, Any]:
            dataset, view = opened.get(request.path_params["name"])
            if request.path_params["what"] == "look":
                return look(app, dataset, body)
            return training(app, dataset, view, dict(body.get("changes") or {}))

        return JSONResponse(await run_in_threadpool(answer))

    async def scan(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(opened.look, request.path_params["name"]))

    async def change(request: Request) -> Response:
        body = await json_object(request)
        name, action = request.path_params["name"], request.path_params["action"]
        return JSONResponse(await run_in_threadpool(lambda: act(action, app.workspace, *opened.get(name), body)))

    return [
        Route("/datasets/{name}/train/{what}", trained, methods=["POST"]),
        Route("/datasets/{name}/scan", scan, methods=["POST"]),
        Route("/datasets/{name}/{action}", change, methods=["POST"]),
    ]


def _list(app: App, opened: OpenDatasets, lists: TagLists) -> dict[str, Any]:
    return {
        "names": opened.library.names(),
        "demo": DEMO,
        "taggers": [*(_tagger(one) for one in installed(app.workspace)), *captioner_rows(app.workspace)],
        "presets": [{"name": name, **preset(name)} for name in preset_names()],
        "lists": lists.names(),
        "draft": app.drafts.get("dataset"),
    }


def _tagger(one: InstalledTagger) -> dict[str, Any]:
    try:
        return {"name": one.name, "title": f"{one.name} ({one.spec().title})", "thresholds": one.thresholds()}
    except FileError as error:
        return {"name": one.name, "title": one.name, "thresholds": {}, "error": error.to_json()}
