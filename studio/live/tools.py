"""Tools that read and describe pictures, for the page: the form of each, and the prompt that its choices make."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from studio.app import App
from studio.comfy.requests import json_object
from taggers.forms import preview, tool_forms


def routes(app: App) -> list[BaseRoute]:
    def forms(_: Request) -> Response:
        return JSONResponse({"tools": tool_forms(app.workspace)})

    async def prompt(request: Request) -> Response:
        body = await json_object(request)
        return JSONResponse(await run_in_threadpool(preview, body))

    return [Route("/tools", forms), Route("/tools/prompt", prompt, methods=["POST"])]
