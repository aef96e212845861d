"""What the Workflow tab asks: the workflow that is open, its form, running it; templates and saved workflows."""

from __future__ import annotations

import io
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from engine.errors import InputError
from studio.app import App
from studio.comfy.editor import is_served
from studio.comfy.requests import file_body, folder_of, json_object, path_in
from studio.live.events import job_json
from tabs import workbench


class UnknownSource(InputError):
    en = "Nothing to open: send one of {known}."
    zh = "没有可打开的内容：请发送其中之一：{known}。"


class NotInputs(InputError):
    en = "'inputs' must be a list of [node id, name]."
    zh = "“inputs”必须是 [节点编号, 名称] 的列表。"


class NotValues(InputError):
    en = "'values' must be an object of \"node.input\": value."
    zh = '“values”必须是 "节点.输入": 值 的对象。'


def routes(app: App) -> list[BaseRoute]:
    largest = app.settings.limits.prompt_mb

    def answer(found: workbench.Opened) -> Response:
        return JSONResponse({**workbench.describe(app, found), "editor": is_served(app)})

    async def current(request: Request) -> Response:
        if request.method == "GET":
            return await run_in_threadpool(lambda: answer(workbench.opened(app)))
        body = await json_object(request, largest)
        return await run_in_threadpool(lambda: answer(_open(app, body)))

    async def from_file(request: Request) -> Response:
        file, _ = await file_body(request, "file", app.settings.limits.upload_mb)
        name, data = file.filename or "", io.BytesIO(await file.read())
        found = await app.decode(workbench.open_file, app, data, name)
        return await run_in_threadpool(answer, found)

    async def values(request: Request) -> Response:
        body = await json_object(request, largest)
        if not isinstance(body.get("values"), dict):
            raise NotValues()
        return await run_in_threadpool(lambda: answer(workbench.set_values(app, body["values"])))

    async def inputs(request: Request) -> Response:
        chosen = _pairs((await json_object(request)).get("inputs"))
        return await run_in_threadpool(lambda: answer(workbench.choose_inputs(app, chosen)))

    async def save(request: Request) -> Response:
        name = str((await json_object(request)).get("name", ""))
        return await run_in_threadpool(lambda: answer(workbench.save(app, name)))

    async def run(request: Request) -> Response:
        user = getattr(request.state, "user", "")
        job = await run_in_threadpool(workbench.run, app, user)
        return JSONResponse(job_json(job), 201)

    def listed(_: Request) -> Response:
        return JSONResponse({"templates": workbench.templates(), "saved": workbench.saved(app)})

    return [
        Route("/workflow", current, methods=["GET", "POST"]),
        Route("/workflow/file", from_file, methods=["POST"]),
        Route("/workflow/values", values, methods=["POST"]),
        Route("/workflow/inputs", inputs, methods=["POST"]),
        Route("/workflow/save", save, methods=["POST"]),
        Route("/workflow/run", run, methods=["POST"]),
        Route("/workflows", listed),
    ]


def _open(app: App, body: dict[str, Any]) -> workbench.Opened:
    """{"edited": workflow} from the editor, or a thing to open, by what it is."""
    match body:
        case {"edited": workflow}:
            return workbench.update(app, workflow)
        case {"document": document}:
            return workbench.open_document(app, document, str(body.get("name", ""))[:100])
        case {"parameters": str(text)}:
            return workbench.open_parameters(app, text)
        case {"template": str(name)}:
            return workbench.open_template(app, name)
        case {"saved": str(name)}:
            return workbench.open_saved(app, name)
        case {"picture": {"filename": str(filename), **more}}:
            root = folder_of(app.workspace, str(more.get("type") or "output"))
            path = path_in(root, str(more.get("subfolder") or ""), filename)
            return workbench.open_picture(app, path)
    raise UnknownSource(known="document, parameters, template, saved, picture")


def _pairs(value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, list) or not all(isinstance(row, list) and len(row) == 2 for row in value):
        raise NotInputs()
    return [(str(node_id), str(name)) for node_id, name in value]
