"""Who gets in: every rule of the gate, over real sockets against a real uvicorn."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from studio.access import Access
from studio.gate import COOKIE, Gate, is_local, language_of
from tests.studio.conftest import PATIENCE, running

PASSWORD = "correct horse"
TUNNEL = {"Host": "abc123.example.live", "X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
PLAIN_PATHS = ("/", "/config", "/gradio_api/info", "/theme.css", "/api/prompt", "/assets/x.js", "/studio/status")


def inner() -> Starlette:
    """Says who asked, whatever the path; an event stream; an echo socket."""

    async def who(request: Request) -> JSONResponse:
        return JSONResponse({"user": request.state.user, "path": request.url.path})

    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(iter(["data: 1\n\n"]), media_type="text/event-stream")

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(websocket.state.user)
        await websocket.close()

    everything = ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]
    return Starlette(
        routes=[Route("/events", stream), WebSocketRoute("/ws", echo), Route("/{path:path}", who, methods=everything)]
    )


@pytest.fixture
def access(tmp_path: Path) -> Access:
    made = Access(tmp_path / "access.json")
    made.set_password(PASSWORD)
    return made


@pytest.fixture
def port(access: Access) -> Iterator[int]:
    with running(Gate(inner(), access)) as port:
        yield port


@pytest.fixture
def client(port: int) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=PATIENCE) as client:
        yield client


def sign_in(client: httpx.Client, password: str = PASSWORD, **headers: str) -> httpx.Response:
    return client.post("/login", data={"password": password, "next": "/x"}, headers={**TUNNEL, **headers})


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "LOCALHOST", "[::1]", "localhost:8888"])
def test_this_machine_comes_in_without_a_password(client: httpx.Client, host: str) -> None:
    answer = client.get("/", headers={"Host": host})
    assert answer.status_code == 200 and answer.json()["user"] == "local"


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "abc123.example.live"},
        {"Host": "192.168.1.5:7860"},
        {"Host": "localhost.example.com"},
        {"Host": "127.0.0.1.nip.io"},
        {"X-Forwarded-For": "203.0.113.9"},
        {"X-Forwarded-Host": "localhost"},
        {"X-Forwarded-Proto": "https"},
        {"X-Forwarded-Anything": "1"},
        {"Forwarded": "for=203.0.113.9"},
        {"X-Real-IP": "203.0.113.9"},
        {"Via": "1.1 proxy"},
        {"CF-Connecting-IP": "203.0.113.9"},
        {"X-Client-IP": "203.0.113.9"},
        {"X-Original-Host": "abc123.example.live"},
        {"Tailscale-User-Login": "somebody@example.com"},
    ],
)
@pytest.mark.parametrize("path", PLAIN_PATHS)
def test_whatever_came_through_something_needs_a_password(
    client: httpx.Client, headers: dict[str, str], path: str
) -> None:
    assert client.get(path, headers=headers).status_code == 401
    assert client.post(path, headers=headers).status_code == 401
    page = client.get(path, headers={**headers, "Accept": "text/html"})
    assert page.status_code == 303 and page.headers["location"].startswith("/login?next=")


@pytest.mark.parametrize("peer", ["203.0.113.9", "192.168.1.5", "::ffff:192.168.1.5", "not an address", ""])
def test_a_peer_that_is_not_loopback_is_not_local_whatever_host_it_names(peer: str) -> None:
    from starlette.datastructures import Headers

    scope = {"type": "http", "client": (peer, 1) if peer else None}
    assert not is_local(scope, Headers({"host": "localhost"}))
    assert is_local({"type": "http", "client": ("::ffff:127.0.0.1", 1)}, Headers({"host": "localhost"}))


@pytest.mark.parametrize("host", ["", "a b", "evil.com/x", "evil.com\\x", "[::1", "x" * 10 + ":123456"])
def test_a_malformed_host_is_refused(port: int, host: str) -> None:
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert raw.recv(100).split(b" ")[1] == b"400"


def test_a_proxy_that_says_nothing_but_speaks_http_1_0_is_not_this_machine(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(b"GET /studio/status HTTP/1.0\r\nHost: 127.0.0.1:7860\r\n\r\n")
        assert raw.recv(100).split(b" ")[1] == b"401"


def test_a_second_host_header_is_refused(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.com\r\nConnection: close\r\n\r\n")
        assert raw.recv(100).split(b" ")[1] == b"400"


FOREIGN: list[dict[str, str]] = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:3000"},
    {"Origin": "http://127.0.0.1.evil.example"},
    {"Origin": "file://"},
    {"Origin": ""},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
]


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
def test_another_web_page_can_do_nothing_even_on_open_loopback(
    client: httpx.Client, access: Access, headers: dict[str, str], method: str
) -> None:
    assert client.request(method, "/api/prompt", headers=headers).status_code == 403
    token = {"Authorization": f"Bearer {access.new_token('t')}"}
    assert client.request(method, "/api/prompt", headers={**headers, **token}).status_code == 403


def test_a_link_from_another_page_may_be_followed_but_a_form_may_not(client: httpx.Client) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert client.get("/", headers=link).status_code == 200
    assert client.post("/", headers=link).status_code == 403


def test_our_own_page_may_speak(client: httpx.Client, port: int) -> None:
    for origin, headers in (
        (f"http://127.0.0.1:{port}", {}),
        ("http://localhost", {"Host": "localhost"}),
        ("http://localhost:80", {"Host": "localhost"}),
    ):
        same = {"Origin": origin, "Sec-Fetch-Site": "same-origin", **headers}
        assert client.post("/api/prompt", headers=same).status_code == 200


def test_no_answer_carries_permission_for_other_pages(client: httpx.Client) -> None:
    answer = client.options("/api/prompt", headers={"Origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"Origin": "https://evil.example"}, ""),
        ({"Host": "abc123.example.live"}, ""),
        ({"X-Forwarded-For": "203.0.113.9"}, ""),
        ({"X-Forwarded-For": "203.0.113.9"}, "?token=wrong"),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "websocket"}, ""),
    ],
)
def test_a_websocket_is_refused_before_it_is_accepted(port: int, headers: dict[str, str], query: str) -> None:
    origin = headers.pop("Origin", None)
    with pytest.raises(InvalidStatus) as caught:
        open_socket(port, query, headers, origin)
    assert caught.value.response.status_code == 403


def open_socket(port: int, query: str = "", headers: dict[str, str] | None = None, origin: str | None = None) -> str:
    """What the echo socket says. A Host header of our own needs a raw connection under the same address."""
    headers = dict(headers or {})
    host = headers.pop("Host", f"127.0.0.1:{port}")
    with (
        socket.create_connection(("127.0.0.1", port)) as raw,
        connect(f"ws://{host}/ws{query}", sock=raw, additional_headers=headers, origin=origin, proxy=None) as found,  # type: ignore[arg-type]
    ):
        return str(found.recv())


def test_tokens_open_http_and_websockets_until_they_are_revoked(
    client: httpx.Client, access: Access, port: int
) -> None:
    token = access.new_token("a client")
    bearer, key = {**TUNNEL, "Authorization": f"Bearer {token}"}, {**TUNNEL, "X-API-Key": token}
    for headers in (bearer, key):
        assert client.post("/prompt", headers=headers).json()["user"] == "a client"
    away = {"X-Forwarded-For": "203.0.113.9"}
    assert open_socket(port, f"?clientId=1&token={token}", away) == "a client"
    assert open_socket(port, "", {**away, "Authorization": f"Bearer {token}"}) == "a client"
    assert client.get(f"/?token={token}", headers=TUNNEL).status_code == 401  # it would stay in logs and histories
    assert access.revoke_token(access.tokens()[0]["id"])
    assert client.post("/prompt", headers=bearer).status_code == 401


def test_only_hashes_of_tokens_and_passwords_are_kept(access: Access, tmp_path: Path) -> None:
    token = access.new_token("x")
    text = (tmp_path / "access.json").read_text()
    assert token not in text and PASSWORD not in text and token[6:] not in text
    assert (tmp_path / "access.json").stat().st_mode & 0o077 == 0


def test_the_right_password_opens_a_session_that_survives_a_restart(client: httpx.Client, tmp_path: Path) -> None:
    answer = sign_in(client, Accept="text/html")
    assert answer.status_code == 303 and answer.headers["location"] == "/x"
    cookie = answer.headers["set-cookie"]
    for part in ("HttpOnly", "Secure", "samesite=lax", "Max-Age=2592000", "Path=/"):
        assert part.lower() in cookie.lower()
    value = cookie.partition("=")[2].partition(";")[0]
    again = Access(tmp_path / "access.json")
    assert again.session_ok(value)
    with running(Gate(inner(), again)) as port:
        headers = {**TUNNEL, "Cookie": f"{COOKIE}={value}"}
        assert httpx.get(f"http://127.0.0.1:{port}/", headers=headers, trust_env=False).json()["user"] == "owner"
        assert open_socket(port, "", {"X-Forwarded-For": "1.2.3.4", "Cookie": f"{COOKIE}={value}"}) == "owner"


def test_the_cookie_is_secure_only_where_the_page_is_https(client: httpx.Client) -> None:
    plain = client.post("/login", data={"password": PASSWORD}, headers={"Host": "192.168.1.5:7860"})
    assert plain.status_code == 200 and plain.json() == {"success": True}
    assert "secure" not in plain.headers["set-cookie"].lower()


def test_a_session_ends_with_its_password_its_time_or_one_wrong_letter(access: Access, tmp_path: Path) -> None:
    session = access.new_session()
    assert access.session_ok(session)
    for position in range(0, len(session), 7):
        letter = "0" if session[position] != "0" else "1"
        assert not access.session_ok(session[:position] + letter + session[position + 1 :])
    for forged in ("", ".", "..", "...", "a.b.c.d", session.rpartition(".")[0], "é.é.é.é"):
        assert not access.session_ok(forged)
    access.set_password("another one")
    assert not access.session_ok(session)
    assert not Access(tmp_path / "short.json", session_days=0).session_ok(access.new_session())
    passing = Access(tmp_path / "past.json", session_days=-1)
    assert not passing.session_ok(passing.new_session())


def test_wrong_passwords_are_slowed_down_and_another_address_is_not(client: httpx.Client) -> None:
    codes = [sign_in(client, "wrong").status_code for _ in range(7)]
    assert codes[:5] == [400] * 5 and codes[5:] == [429, 429]
    waiting = sign_in(client)
    assert waiting.status_code == 429 and int(waiting.headers["retry-after"]) >= 1
    other = client.post("/login", data={"password": PASSWORD}, headers={**TUNNEL, "X-Forwarded-For": "198.51.100.7"})
    assert other.status_code == 200


def test_a_login_leads_only_to_pages_of_ours(client: httpx.Client) -> None:
    for target in (
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "/a\r\nb",
        "/login",
    ):
        answer = client.post(
            "/login", data={"password": PASSWORD, "next": target}, headers={**TUNNEL, "Accept": "text/html"}
        )
        assert answer.headers["location"] == "/"


def test_another_page_cannot_sign_anybody_in_or_out(client: httpx.Client) -> None:
    assert sign_in(client, Origin="https://evil.example").status_code == 403
    assert client.get("/logout", headers=TUNNEL).status_code == 405
    out = client.post("/logout", headers=TUNNEL)
    assert out.status_code == 303 and 'easel_session=""' in out.headers["set-cookie"]


def test_the_login_page_speaks_the_language_of_the_browser_and_loads_nothing(client: httpx.Client) -> None:
    chinese = client.get(
        "/login?next=/%22%3E%3Cscript%3E", headers={**TUNNEL, "Accept-Language": "zh-CN,zh;q=0.9,en;q=0.8"}
    )
    assert "登录" in chinese.text and 'lang="zh-CN"' in chinese.text
    assert "<script>" not in chinese.text and "http" not in chinese.text.replace("http-equiv", "")
    assert "Sign in" in client.get("/login", headers={**TUNNEL, "Accept-Language": "de,en;q=0.5"}).text
    assert language_of("fr") == "en" and language_of("") == "en"


def test_a_login_form_of_any_size_is_not_read(client: httpx.Client) -> None:
    assert client.post("/login", data={"password": "x" * 20_000}, headers=TUNNEL).status_code == 413


def test_a_password_is_made_and_announced_once_when_somebody_needs_it(tmp_path: Path) -> None:
    announced: list[str] = []
    access = Access(tmp_path / "access.json", announce=announced.append)
    with (
        running(Gate(inner(), access)) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        assert client.get("/").status_code == 200 and announced == []
        for _ in range(3):
            assert client.get("/", headers=TUNNEL).status_code == 401
        assert len(announced) == 1 and len(announced[0]) == 19
        assert client.post("/login", data={"password": ""}, headers=TUNNEL).status_code == 400
        assert client.post("/login", data={"password": announced[0]}, headers=TUNNEL).status_code == 200


def test_on_a_shared_machine_the_owner_can_want_the_password_from_everybody(access: Access) -> None:
    with running(Gate(inner(), access, local_without_password=False)) as port:
        assert httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).status_code == 401


def test_health_is_told_to_all_and_nothing_else(client: httpx.Client) -> None:
    assert client.get("/healthz", headers=TUNNEL).text == "ok"
    assert client.get("/healthz/x", headers=TUNNEL).status_code == 401


def test_event_streams_are_kept_from_being_buffered_by_proxies(client: httpx.Client) -> None:
    answer = client.get("/events")
    assert answer.headers["x-accel-buffering"] == "no" and "no-transform" in answer.headers["cache-control"]
    assert client.get("/").headers["x-frame-options"] == "SAMEORIGIN"


def test_other_scopes_pass_untouched() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    asyncio.run(Gate(app, None)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan"]
    assert json.dumps(seen)


@pytest.mark.parametrize("body", [b"", b"--x", b"--b\r\nno header\r\n", b"--b\r\n\r\n\r\n--b--", b"\xff=\xff"])
def test_a_broken_form_is_no_password_and_no_failure_of_the_server(client: httpx.Client, body: bytes) -> None:
    for kind in ("multipart/form-data; boundary=b", "multipart/form-data", "application/x-www-form-urlencoded"):
        answer = client.post("/login", content=body, headers={"Content-Type": kind})
        assert answer.status_code in (400, 429), kind
