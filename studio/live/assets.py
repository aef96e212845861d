"""What the page loads: scripts and styles of the live parts, and the words of both languages."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from studio.app import App
from tabs.shell import STATIC
from tabs.words import table


def routes(app: App) -> list[BaseRoute]:
    async def words(_: Request) -> Response:
        return JSONResponse({"en": table("en"), "zh": table("zh")})

    return [Route("/words.json", words), Mount("/static", StaticFiles(directory=STATIC))]
