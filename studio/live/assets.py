"""What the page loads: scripts and styles of the live parts, and the words of both languages."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from studio.app import App
from tabs.shell import STATIC
from tabs.words import table

ASK_AGAIN = {"Cache-Control": "no-cache"}  # unchanged files cost a 304; a newer studio never meets its older scripts


class Scripts(StaticFiles):
    def file_response(self, *args: Any, **options: Any) -> Response:
        answer = super().file_response(*args, **options)
        answer.headers.update(ASK_AGAIN)
        return answer


def routes(app: App) -> list[BaseRoute]:
    async def words(_: Request) -> Response:
        return JSONResponse({"en": table("en"), "zh": table("zh")}, headers=ASK_AGAIN)

    return [Route("/words.json", words), Mount("/static", Scripts(directory=STATIC))]
