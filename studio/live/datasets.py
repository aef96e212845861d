"""Datasets for the page: what the Dataset tab shows and does. Each route is one call of engine.dataset."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from engine.dataset import bulk
from engine.dataset.captions import CaptionRules, canonical, pretty, split_tags
from engine.dataset.export import caption_of, export_sidecars, import_sidecars, rules_of, set_rules
from engine.dataset.library import Dataset, Library
from engine.dataset.pictures import add_upload, scan, thumbnail
from engine.dataset.query import matching
from engine.dataset.view import Annotation, View
from engine.errors import FileError, InvalidSetting
from engine.settings import checked
from studio.app import App
from studio.comfy.requests import file_body, json_object
from studio.demo.dataset import NAME as DEMO
from studio.demo.dataset import make_demo_dataset
from taggers.catalogue import InstalledTagger, installed

FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}  # addresses carry the content's hash
SHOWN_CHANGES = 200  # of a bulk edit's preview
MOST_TAGS = 2000


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


Handler = Callable[[Dataset, View, dict[str, Any]], dict[str, Any]]


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

    async def choose(request: Request) -> Response:
        app.drafts.put("dataset", {"current": str((await json_object(request)).get("name", ""))})
        return JSONResponse({})

    async def show(request: Request) -> Response:
        words = request.query_params.get("filter", "")
        return JSONResponse(await run_in_threadpool(lambda: _show(*opened.get(request.path_params["name"]), words)))

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

    async def act(request: Request) -> Response:
        body = await json_object(request)
        name, action = request.path_params["name"], request.path_params["action"]
        if action not in ACTIONS:
            raise InvalidSetting(
                where="datasets", name="action", value=action, reason=f"known are {', '.join(ACTIONS)}"
            )
        return JSONResponse(await run_in_threadpool(lambda: ACTIONS[action](*opened.get(name), body)))

    return [
        Route("/datasets", listed, methods=["GET", "POST"]),
        Route("/datasets/demo", demo, methods=["POST"]),
        Route("/datasets/current", choose, methods=["POST"]),
        Route("/datasets/{name}", show),
        Route("/datasets/{name}/about/{id:int}", about),
        Route("/datasets/{name}/upload", upload, methods=["POST"]),
        Route("/datasets/{name}/{size}/{id:int}", file),
        Route("/datasets/{name}/{action}", act, methods=["POST"]),
    ]


def _list(app: App, library: Library) -> dict[str, Any]:
    taggers = [_tagger(one) for one in installed(app.workspace)]
    current = app.drafts.get("dataset").get("current", "")
    return {"names": library.names(), "demo": DEMO, "taggers": taggers, "current": current}


def _tagger(one: InstalledTagger) -> dict[str, Any]:
    try:
        return {"name": one.name, "title": f"{one.name} ({one.spec().title})", "thresholds": one.thresholds()}
    except FileError as error:
        return {"name": one.name, "title": one.name, "thresholds": {}, "error": error.to_json()}


def _show(dataset: Dataset, view: View, words: str) -> dict[str, Any]:
    rules = rules_of(dataset)
    pictures, mask = view.pictures(), matching(view, words)
    shown = [picture for picture, kept in zip(pictures, mask, strict=True) if kept]
    events = dataset.store.events(200)
    return {
        "total": len(pictures),
        "pictures": [
            {"id": p.id, "name": p.name, "hash": p.hash, "caption": caption_of(view, rules, p)[:160]} for p in shown
        ],
        "tags": [
            {"name": c.name, "shown": pretty(c.name), "n": c.pictures, "filter": f"tag:{_quoted(c.name)}"}
            for c in view.counts(mask)[:MOST_TAGS]
        ],
        "rules": rules.model_dump(mode="json"),
        "problems": [{"path": row.path, **(row.problem or {})} for row in dataset.store.problems()],
        "undo": next((e.title for e in events if e.state == "done"), ""),
        "redo": next((e.title for e in reversed(events) if e.state == "undone"), ""),
    }


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
        "annotations": [_annotation(one) for one in sorted(annotations, key=lambda a: (not a.present, -a.score))],
    }


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


def _decide(dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    tag, state = canonical(str(body["tag"])), int(body["state"])
    if not tag or state not in (-1, 0, 1):
        raise InvalidSetting(where="the edit", name="tag", value=tag, reason="a tag and -1, 0 or 1 are needed")
    word = {1: "Accept", 0: "Forget", -1: "Reject"}[state]
    event = dataset.store.decide([(i, tag, state) for i in _ids(body)], f"{word} {pretty(tag)}")  # type: ignore[misc]
    return {"changed": event is not None}


def _caption(dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    event = dataset.store.write_captions({int(body["picture"]): str(body["text"]).strip()}, "Write caption")
    return {"changed": event is not None}


def _bulk(dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    """An edit of many pictures: shown with `apply` false, made with `apply` true and the digest of what was shown."""
    how, find, replace = (str(body.get(name) or "") for name in ("action", "find", "replace"))
    tags = {"add": find, "remove": find, "replace": replace}.get(how, "")
    edit = {"how": how, "tags": split_tags(tags)} | ({"find": find} if how in ("replace", "regex") else {})
    wanted = checked(bulk.BulkEdit, edit | ({"replace": replace} if how == "regex" else {}), "the edit")
    chosen = set(_ids(body))
    mask = matching(view, str(body.get("filter") or ""))
    pictures = [p for p, kept in zip(view.pictures(), mask, strict=True) if kept and (not chosen or p.id in chosen)]
    if body.get("apply"):
        event = bulk.apply(view, wanted, pictures, body.get("expected"))
        return {"changed": event is not None}
    plan = bulk.plan(view, wanted, pictures)
    rows = [
        {"name": c.name, "added": [pretty(t) for t in c.added], "removed": [pretty(t) for t in c.removed]}
        for c in plan.changes[:SHOWN_CHANGES]
    ]
    return {"total": len(plan.changes), "digest": plan.digest, "changes": rows}


def _undo(dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    event = dataset.store.undo()
    return {"event": event.title if event else ""}


def _redo(dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    event = dataset.store.redo()
    return {"event": event.title if event else ""}


def _rules(dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    set_rules(dataset, checked(CaptionRules, body, "the caption rules"))
    return {}


def _export(dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    suffix = ".caption" if body.get("suffix") == ".caption" else ".txt"
    report = export_sidecars(dataset, view, suffix=suffix, overwrite=bool(body.get("overwrite")))
    return {"done": report.done, "unchanged": report.unchanged, "problems": report.problems}


def _scan(dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    report = scan(dataset)
    return {"added": report.added, "gone": report.gone, "problems": len(report.problems)}


ACTIONS: dict[str, Handler] = {
    "decide": _decide,
    "caption": _caption,
    "bulk": _bulk,
    "undo": _undo,
    "redo": _redo,
    "rules": _rules,
    "export": _export,
    "scan": _scan,
}


def _ids(body: dict[str, Any]) -> Iterable[int]:
    return [int(i) for i in body.get("pictures") or ()]


def _quoted(name: str) -> str:
    return f'"{name}"' if any(character in name for character in ' ()"') else name
