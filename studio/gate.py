"""One gate before everything on the port: pages, API, websockets. It decides who speaks, never what is said.

In this order, for every request and websocket:

1. Host must be there and well formed. It alone decides nothing but whether the password may be skipped (3).
2. No other web page may speak to the studio: an Origin other than our own host, or a browser's word that the request
   comes from another site (Sec-Fetch-Site), is refused. Only following a link (a top-level GET) is let through.
3. Without a password: only when the peer is this machine, the Host names it, and no proxy has touched the request.
   Tunnels and rented hosts reach us from loopback, but with another Host, with headers of a proxy, or in HTTP/1.0.
   A tunnel of bare TCP (ssh -R) leaves no trace: whoever makes one sets local_without_password = false.
4. Otherwise a session cookie, or an API token (Authorization: Bearer, X-API-Key, for websockets also ?token=).
   Browsers are sent to /login, everybody else gets 401.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.errors import EaselError, Language
from studio.access import Access, Throttle

COOKIE = "easel_session"
LOCAL_USER = "local"
PASSWORD_USER = "owner"
LONGEST_FORM = 8192
_HOST = re.compile(r"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+)(:\d{1,5})?$")
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
_PROXY_HEADERS = (
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-ip",
    "x-original-host",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "true-client-ip",
    "cf-connecting-ip",
    "cf-ray",
    "fly-client-ip",
    "fastly-client-ip",
    "tailscale-user-login",
)

WRONG: dict[Language, str] = {"en": "Wrong password.", "zh": "密码错误。"}
WAIT: dict[Language, str] = {
    "en": "Too many tries. Wait {seconds} s and try again.",
    "zh": "尝试次数过多，请在 {seconds} 秒后重试。",
}


class OwnerOnly(EaselError):
    en = "Only the owner may do this, signed in on the page or on this machine. An API token may not."
    zh = "只有所有者（在页面登录或在本机操作）可以执行此操作，API 令牌不行。"


@dataclass(frozen=True)
class Visitor:
    """Who speaks. `owner`: a person with the password or at this machine, not a program with an API token."""

    name: str
    owner: bool


class Gate:
    """ASGI middleware around the whole application. Sets `request.state.user` and `request.state.owner`."""

    def __init__(self, app: ASGIApp, access: Access, *, local_without_password: bool = True) -> None:
        self._app = app
        self._access = access
        self._local_open = local_without_password
        self._throttle = Throttle()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if not _HOST.match(headers.get("host", "")) or len(headers.getlist("host")) != 1:
            await _refuse(scope, receive, send, 400, "The Host header is missing or malformed.")
            return
        if not _from_own_page(scope, headers):
            await _refuse(scope, receive, send, 403, "Another web page may not speak to this studio.")
            return
        path = scope["path"]
        if path == "/healthz":
            await PlainTextResponse("ok")(scope, receive, send)
            return
        if scope["type"] == "http" and path in ("/login", "/login/"):
            await (await self._login(Request(scope, receive)))(scope, receive, send)
            return
        if scope["type"] == "http" and path == "/logout":
            await self._logout(scope, receive, send)
            return
        visitor = self._visitor(scope, headers)
        if visitor is None:
            await self._turn_away(scope, receive, send, headers)
            return
        scope.setdefault("state", {}).update(user=visitor.name, owner=visitor.owner)
        await self._app(scope, receive, _with_headers(send))

    def _visitor(self, scope: Scope, headers: Headers) -> Visitor | None:
        """A token tells who it is even where nobody would have to: the queue then says whose job it is."""
        token = _token(scope, headers)
        if token and (name := self._access.token_name(token)):
            return Visitor(name, owner=self._access.is_passing(token))
        if self._local_open and is_local(scope, headers):
            return Visitor(LOCAL_USER, owner=True)
        cookie = Request({"type": "http", "headers": scope["headers"]}).cookies.get(COOKIE, "")
        return Visitor(PASSWORD_USER, owner=True) if cookie and self._access.session_ok(cookie) else None

    async def _turn_away(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        await asyncio.to_thread(self._access.ensure_password)
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and "text/html" in headers.get("accept", ""):
            target = scope["path"] + ("?" + scope["query_string"].decode("latin-1") if scope["query_string"] else "")
            await RedirectResponse("/login?next=" + quote(target, safe=""), 303)(scope, receive, send)
            return
        await _refuse(scope, receive, send, 401, "Sign in first, or send an API token.")

    async def _login(self, request: Request) -> Response:
        html = "text/html" in request.headers.get("accept", "")
        language = language_of(request.headers.get("accept-language", ""))
        if request.method in ("GET", "HEAD"):
            await asyncio.to_thread(self._access.ensure_password)
            return HTMLResponse(login_page(language, _safe_target(request.query_params.get("next", "/"))))
        if request.method != "POST":
            return PlainTextResponse("Method Not Allowed", 405, {"Allow": "GET, POST"})
        length = request.headers.get("content-length", "")
        if not (length.isdecimal() and len(length) < 8 and int(length) <= LONGEST_FORM):
            return JSONResponse({"detail": "The form is too long."}, 413)
        try:
            form = await request.form(max_files=0, max_fields=10)
        except (HTTPException, MultiPartException, ValueError, KeyError):
            return JSONResponse({"detail": "The form can't be read."}, 400)
        target = _safe_target(str(form.get("next") or "/"))
        address = client_address(request.scope, request.headers)
        seconds = self._throttle.wait(address)
        if seconds > 0:
            words = WAIT[language].format(seconds=int(seconds) + 1)
            return _refused_login(html, language, target, words, 429, {"Retry-After": str(int(seconds) + 1)})
        self._throttle.failed(address)  # before the slow check, so that tries side by side are counted too
        if not await asyncio.to_thread(self._access.check_password, str(form.get("password", ""))):
            return _refused_login(html, language, target, WRONG[language], 400)
        self._throttle.succeeded(address)
        response = RedirectResponse(target, 303) if html else JSONResponse({"success": True})
        response.set_cookie(
            COOKIE,
            self._access.new_session(),
            max_age=self._access.session_seconds,
            path="/",
            httponly=True,
            samesite="lax",
            secure=_is_https(request.scope, request.headers),
        )
        return response

    async def _logout(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":  # a link of a stranger must not sign anybody out
            await PlainTextResponse("Method Not Allowed", 405, {"Allow": "POST"})(scope, receive, send)
            return
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE, path="/")
        await response(scope, receive, send)


def owner_only(request: Request) -> None:
    """Raises OwnerOnly for programs with an API token."""
    if not getattr(request.state, "owner", False):
        raise OwnerOnly()


def is_local(scope: Scope, headers: Headers) -> bool:
    """A request that this machine's own browser or program made to this machine, with nothing in between."""
    name = headers.get("host", "").lower()
    name = name[: name.index("]") + 1] if name.startswith("[") else name.partition(":")[0]
    if name not in _LOCAL_NAMES or any(key in _PROXY_HEADERS or key.startswith("x-forwarded") for key in headers):
        return False
    if scope.get("http_version") in ("0.9", "1.0"):  # what proxies speak that were told nothing; browsers speak 1.1
        return False
    client = scope.get("client")
    try:
        address = ipaddress.ip_address(client[0]) if client else None
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return bool(address and address.is_loopback)


def client_address(scope: Scope, headers: Headers) -> str:
    """Whose tries are counted: the peer, or what the proxy on this machine says of its peer."""
    peer = scope["client"][0] if scope.get("client") else "?"
    forwarded = headers.get("x-forwarded-for", "").split(",")[-1].strip()
    return f"{peer} for {forwarded[:60]}" if forwarded else peer


def language_of(accept_language: str) -> Language:
    """The page's language from a browser's Accept-Language: whichever of zh and en comes first."""
    for part in accept_language.lower().split(","):
        if part.strip().startswith("zh"):
            return "zh"
        if part.strip().startswith("en"):
            return "en"
    return "en"


def login_page(language: Language, target: str, error: str = "") -> str:
    words = {
        "en": {
            "lang": "en",
            "title": "Sign in",
            "password": "Password",
            "button": "Sign in",
            "hint": "It was printed in the terminal of Easel. <code>studio password</code> sets a new one.",
        },
        "zh": {
            "lang": "zh-CN",
            "title": "登录",
            "password": "密码",
            "button": "登录",
            "hint": "密码已打印在启动 Easel 的终端中。运行 <code>studio password</code> 可重新设置。",
        },
    }[language]
    page = _template()
    for name, value in words.items():
        page = page.replace("{{" + name + "}}", value)
    return page.replace("{{target}}", _escape(target)).replace("{{error}}", _escape(error))


@cache
def _template() -> str:
    return Path(__file__).with_name("login.html").read_text(encoding="utf-8")


def _from_own_page(scope: Scope, headers: Headers) -> bool:
    origin = headers.get("origin")
    if origin is not None:
        return _netloc(origin) in _own_names(headers)
    site = headers.get("sec-fetch-site", "none").lower()
    if site in ("none", "same-origin"):
        return True
    follows_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and follows_link


def _own_names(headers: Headers) -> set[str]:
    """A page can't set these headers on a request to another site, so a match means that the page is ours."""
    names = (headers.get("host", ""), headers.get("x-forwarded-host", "").split(",")[0])
    return {_without_default_port(name.strip().lower()) for name in names if name.strip()}


def _netloc(origin: str) -> str:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return "?"
    return _without_default_port(parts.netloc.lower()) if parts.scheme in ("http", "https") and parts.netloc else "?"


def _without_default_port(netloc: str) -> str:
    return netloc.removesuffix(":80").removesuffix(":443")


def _token(scope: Scope, headers: Headers) -> str:
    authorization = headers.get("authorization", "")
    if authorization[:7].lower() == "bearer ":
        return authorization[7:].strip()
    if key := headers.get("x-api-key"):
        return key.strip()
    if scope["type"] == "websocket":
        return QueryParams(scope["query_string"]).get("token", "")
    return ""


def _is_https(scope: Scope, headers: Headers) -> bool:
    return scope["scheme"] == "https" or headers.get("x-forwarded-proto", "").split(",")[0].strip().lower() == "https"


def _safe_target(target: str) -> str:
    """A path of ours, or the first page: never a way to another site."""
    if not target.startswith("/") or target.startswith(("//", "/\\", "/login")) or any(ord(c) < 32 for c in target):
        return "/"
    return target


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def _refused_login(
    html: bool, language: Language, target: str, words: str, status: int, headers: dict[str, str] | None = None
) -> Response:
    if html:
        return HTMLResponse(login_page(language, target, words), status, headers)
    return JSONResponse({"detail": words}, status, headers)


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, why: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": why})  # before accept: the client sees HTTP 403
        return
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    await JSONResponse({"error": why}, status, headers)(scope, receive, send)


def _with_headers(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.setdefault("X-Content-Type-Options", "nosniff")
            headers.setdefault("X-Frame-Options", "SAMEORIGIN")
            headers.setdefault("Referrer-Policy", "same-origin")
            if headers.get("content-type", "").startswith("text/event-stream"):
                headers["X-Accel-Buffering"] = "no"  # nginx would hold progress back until the job is over
                headers["Cache-Control"] = "no-cache, no-transform"
        await send(message)

    return wrapped
