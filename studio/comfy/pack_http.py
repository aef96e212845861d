"""HTTP routes and prompt handlers of packs: asked of the worker, where packs run, behind the studio's gate.

A pack sees no cookie and no token of ours and can set none; what it sends as a page may speak to this origin only. How
much may come in, how long an answer may take and how many may be asked for at once have limits. Websockets of packs are
not passed on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import httpx
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from engine.errors import EaselError
from engine.graph.pack_http import KEY, ON_PROMPT, TAKEN
from studio.app import App
from studio.comfy.requests import BodyTooLarge, NotJson, error_response, limited, parsed, refusal

log = logging.getLogger(__name__)

AT_ONCE = 32
ANSWER_SECONDS = 120.0  # until it begins, and between two pieces of it
HANDLER_SECONDS = 2.0  # for all handlers of one prompt
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
# What belongs to one connection, and what would let a pack and the studio's login meet.
_KEPT_BACK = frozenset(
    (
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
        "upgrade", "host", "cookie", "set-cookie", "authorization", "x-api-key", "clear-site-data",
        "access-control-allow-origin", "access-control-allow-credentials", KEY.lower(),
    )
)  # fmt: skip


class PackSilent(EaselError):
    en = "A node pack did not answer {path} within {seconds:.0f} s. Its worker may be busy or starting; try again."
    zh = "节点包在 {seconds:.0f} 秒内没有响应 {path}。工作进程可能正忙或正在启动，请重试。"


class PacksBusy(EaselError):
    en = "{count} requests to node packs are under way, which is the most. Try again when some have been answered."
    zh = "已有 {count} 个发往节点包的请求正在处理，已达上限。请稍后重试。"


class PackRoutes(BaseRoute):
    """Everything that a pack answers, and nothing else. It stands behind the studio's own routes."""

    def __init__(self, app: App, page_policy: str) -> None:
        self._app = app
        self._policy = page_policy
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=2.0),
            limits=httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=4),
            trust_env=False,
            follow_redirects=False,
        )
        self._under_way = 0

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        served = self._app.nodes.served
        if scope["type"] != "http" or not served or scope["method"] not in METHODS:
            return Match.NONE, {}
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        is_ours = path.lstrip("/").partition("/")[0] in TAKEN  # whatever a pattern of a pack would match
        return (Match.FULL if not is_ours and any(map(path.startswith, served["prefixes"])) else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._under_way >= AT_ONCE:
            await refusal(PacksBusy(count=AT_ONCE), 503)(scope, receive, send)
            return
        self._under_way += 1
        try:
            await self._forward(Request(scope, receive), send)
        finally:
            self._under_way -= 1

    async def on_prompt(self, body: Any) -> Any:
        """What handlers of packs make of what was sent to POST /prompt; the same where they do not answer."""
        served = self._app.nodes.served
        if not served or not served["prompt_handlers"] or not isinstance(body, dict):
            return body
        try:
            answer = await self._client.post(
                _address(served) + ON_PROMPT, json=body, headers={KEY: served["key"]}, timeout=HANDLER_SECONDS
            )
            return parsed(answer.raise_for_status().content)
        except (httpx.HTTPError, NotJson) as error:
            log.warning("the prompt handlers of packs did not answer, the prompt goes on as it came: %r", error)
            return body

    async def _forward(self, request: Request, send: Send) -> None:
        try:
            answer = await self._asked(request)
        except BodyTooLarge as error:
            await error_response(request, error)(request.scope, request.receive, send)
            return
        except httpx.TransportError:
            error = PackSilent(path=request.url.path, seconds=ANSWER_SECONDS)
            await refusal(error, 504)(request.scope, request.receive, send)
            return
        except ClientDisconnect:
            return  # nobody waits for an answer
        try:
            headers = {name: value for name, value in answer.headers.items() if name not in _KEPT_BACK}
            if any(kind in headers.get("content-type", "") for kind in ("html", "svg")):
                headers["content-security-policy"] = self._policy
            told = StreamingResponse(answer.aiter_raw(), answer.status_code, headers)
            await told(request.scope, request.receive, send)
        finally:
            await answer.aclose()

    async def _asked(self, request: Request) -> httpx.Response:
        try:
            return await self._ask(request)
        except httpx.ConnectError:  # the worker has been started again since it told where it listens
            await run_in_threadpool(self._app.nodes.refresh)
            return await self._ask(request)

    async def _ask(self, request: Request) -> httpx.Response:
        served = self._app.nodes.served
        if served is None:
            raise httpx.ConnectError("no pack answers any more")
        headers = [(name, value) for name, value in request.headers.items() if name not in _KEPT_BACK]
        if "accept-encoding" not in request.headers:
            headers.append(("accept-encoding", "identity"))  # the answer is passed on as it comes
        has_body = "content-length" in request.headers or "transfer-encoding" in request.headers
        limit = self._app.settings.limits.upload_mb
        query = request.scope["query_string"].decode("latin-1")
        made = self._client.build_request(
            request.method,
            httpx.URL(_address(served), raw_path=_raw_path(request.scope, query)),
            headers=[*headers, (KEY, served["key"])],
            content=limited(request, limit).stream() if has_body else None,
        )
        return await self._client.send(made, stream=True)


def _address(served: Mapping[str, Any]) -> str:
    return f"http://127.0.0.1:{served['port']}"


def _raw_path(scope: Scope, query: str) -> bytes:
    """The path as it came, without what the studio mounts the API under."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    raw = raw.partition(b"?")[0].removeprefix(scope.get("root_path", "").encode())
    return raw + (b"?" + query.encode("latin-1") if query else b"")
