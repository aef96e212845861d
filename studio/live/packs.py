"""Node packs of others for the System tab. Only the owner may see it: it tells paths of the machine."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from studio.app import App
from studio.gate import owner_only


def routes(app: App) -> list[BaseRoute]:
    async def packs(request: Request) -> Response:
        """ "packs" is null until the worker has told."""
        owner_only(request)
        told = {
            "enabled": app.nodes.custom,
            "packs": app.nodes.known_packs(),
            "folder": str(app.workspace.pack_roots[0]),
            "file": str(app.workspace.settings_file),
        }
        return JSONResponse(told)

    return [Route("/packs", packs)]
