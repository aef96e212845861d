"""API tokens for the System tab: made (shown once), listed, revoked. Only the owner may; a token can't make tokens."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from engine.errors import NotFound
from studio.app import App
from studio.comfy.requests import json_object
from studio.gate import PASSWORD_USER, owner_only


def routes(app: App) -> list[BaseRoute]:
    async def tokens(request: Request) -> Response:
        owner_only(request)
        if request.method == "GET":
            signed_in = request.state.user == PASSWORD_USER
            return JSONResponse({"tokens": await run_in_threadpool(app.access.tokens), "signed_in": signed_in})
        name = str((await json_object(request)).get("name", ""))
        token = await run_in_threadpool(app.access.new_token, name)
        return JSONResponse({"token": token, "tokens": await run_in_threadpool(app.access.tokens)}, 201)

    async def revoke(request: Request) -> Response:
        owner_only(request)
        token_id = request.path_params["id"]
        if not await run_in_threadpool(app.access.revoke_token, token_id):
            raise NotFound(
                what="API token", what_zh="API 令牌", name=token_id[:20],
                remedy="It may be revoked already.", remedy_zh="它可能已被撤销。",
            )  # fmt: skip
        return JSONResponse({"tokens": await run_in_threadpool(app.access.tokens)})

    return [
        Route("/tokens", tokens, methods=["GET", "POST"]),
        Route("/tokens/{id}/revoke", revoke, methods=["POST"]),
    ]
