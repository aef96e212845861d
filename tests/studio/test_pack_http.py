"""HTTP routes and prompt handlers of packs, through the real server and worker."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from engine.graph.pack_http import KEY, ON_PROMPT, TAKEN
from studio.comfy import pack_http
from studio.kinds import job_kinds
from studio.server import asgi_app, open_app
from studio.settings import StudioSettings
from tests.studio.conftest import PATIENCE, Served, running
from tests.studio.test_prompt import ended

pytestmark = pytest.mark.slow


@pytest.fixture
def client(packed: Served) -> Iterator[httpx.Client]:
    packed.app.nodes.packs()  # until the worker has told
    with packed.client() as client:
        yield client


def served(packed: Served) -> dict[str, Any]:
    found = packed.app.nodes.served
    assert found is not None
    return found


@pytest.mark.parametrize("root", ["", "/api", "/comfy", "/comfy/api"])
def test_a_route_answers_wherever_the_api_does_and_in_the_worker(
    client: httpx.Client, packed: Served, root: str
) -> None:
    answer = client.get(f"{root}/answers/list?b=%C3%A9&a=1").json()
    assert answer["names"] == ["a", "b"] and answer["query"] == {"b": "é", "a": "1"}
    assert answer["pid"] != os.getpid()


def test_bodies_names_and_status_pass_both_ways(client: httpx.Client) -> None:
    answer = client.post("/api/answers/save/a%20b%2Fc", json={"x": [1, "语"]})
    assert (answer.status_code, answer.json()) == (201, {"name": "a b/c", "body": {"x": [1, "语"]}})
    sent = client.post("/answers/upload", files={"file": ("语.bin", b"x" * 300_000)})
    assert sent.json() == {"name": "语.bin", "bytes": 300_000}
    assert client.get("/answers/stream").text == "0 1 2 "
    assert "teal" in client.get("/answers_files/answers.css").text
    assert client.get("/answers_files/..%2f__init__.py").status_code in (403, 404)
    assert client.head("/answers/list").status_code == 200


def test_what_a_pack_does_not_answer_is_not_found_and_what_fails_is_its_own(client: httpx.Client) -> None:
    assert client.get("/answers/none").status_code == 404
    assert client.get("/answers/save/x").status_code == 405
    assert client.get("/answers/fails").status_code == 500
    assert client.get("/other/list").status_code == 404


def test_the_studio_keeps_its_own_paths(client: httpx.Client) -> None:
    problems = {pack["name"]: pack["problems"] for pack in client.get("/custom_nodes").json()["packs"]}["answers"]
    assert problems == [
        "/studio/status: not served, its first part is the studio's own",
        "/{everything:.*}: not served, its first part is the studio's own",
    ]
    assert "jobs" in client.get("/studio/status").json() or "worker" in client.get("/studio/status").text
    assert client.get("/anything").status_code == 404
    assert client.get("/elsewhere").text == "greedy" and client.get("/easel/x").status_code == 404
    assert client.post(ON_PROMPT, json={"prompt": {}}).status_code == 404
    assert client.get("/extensions").json() == ["/extensions/utility/utility.js"]


def test_no_first_part_of_the_pages_paths_is_left_to_packs(packed: Served) -> None:
    import gradio
    from starlette.applications import Starlette

    server = Starlette()
    with gradio.Blocks() as blocks:
        gradio.Markdown("x")
    gradio.mount_gradio_app(server, blocks, path="/")  # type: ignore[arg-type]
    pages: Any = server.routes[-1]
    firsts = {getattr(route, "path", "/").strip("/").partition("/")[0] for route in pages.app.routes}
    assert {first for first in firsts if first and "{" not in first} <= TAKEN


def test_a_pack_sees_no_credentials_and_can_set_none(client: httpx.Client, packed: Served) -> None:
    secret = {"Cookie": "easel_session=s", "Authorization": "Bearer t", "X-API-Key": "k", KEY: "guess", "X-Mine": "yes"}
    answer = client.get("/answers/headers", headers=secret)
    seen = answer.json()
    assert seen["x-mine"] == "yes" and seen[KEY.lower()] == served(packed)["key"]
    assert not {"cookie", "authorization", "x-api-key"} & set(seen)
    assert "set-cookie" not in answer.headers and "access-control-allow-origin" not in answer.headers
    assert "connect-src 'self'" in client.get("/answers/page").headers["content-security-policy"]


def test_routes_of_packs_stand_behind_the_gate(packed: Served) -> None:
    with packed.client(headers={"Host": "studio.example"}) as stranger:
        assert stranger.get("/answers/list").status_code == 401
    with packed.client(headers={"Origin": "http://evil.example"}) as page:
        assert page.post("/answers/save/x", json={}).status_code == 403


def test_nobody_else_on_the_machine_reaches_the_packs(packed: Served, client: httpx.Client) -> None:
    address = f"http://127.0.0.1:{served(packed)['port']}"
    for path in ("/answers/list", ON_PROMPT):
        assert httpx.post(address + path, json={}, trust_env=False).status_code == 403
        assert httpx.post(address + path, headers={KEY: "x" * 43}, trust_env=False).status_code == 403
    assert client.post(ON_PROMPT, json={"prompt": {}}).status_code == 404


def test_an_answer_may_take_its_time_but_not_for_ever(
    client: httpx.Client, packed: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_http, "ANSWER_SECONDS", 3.0)
    app = packed.app
    with running(asgi_app(app, with_page=False)) as port, Served(app, port, []).client() as quick:
        assert quick.get("/answers/slow?seconds=0").text == "at last"
        answer = quick.get("/answers/slow?seconds=60")
    assert answer.status_code == 504 and "/answers/slow within 3 s" in answer.json()["error"]["en"]


def test_only_so_many_are_asked_for_at_once(packed: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_http, "AT_ONCE", 2)
    app = packed.app

    async def ask(port: int) -> list[int]:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=PATIENCE) as client:
            answers = await asyncio.gather(*(client.get("/answers/slow?seconds=3") for _ in range(4)))
            last = await client.get("/answers/slow?seconds=0")
            return sorted(answer.status_code for answer in [*answers, last])

    with running(asgi_app(app, with_page=False)) as port:
        assert asyncio.run(ask(port)) == [200, 200, 200, 503, 503]


def test_too_large_a_body_is_refused(packed: Served) -> None:
    settings = packed.app.settings
    limits = settings.limits.model_copy(update={"upload_mb": 1})
    app = replace(packed.app, settings=settings.model_copy(update={"limits": limits}))
    with running(asgi_app(app, with_page=False)) as port, Served(app, port, []).client() as small:
        assert small.post("/answers/upload", files={"file": ("a", b"x" * 2_000_000)}).status_code == 413

        def pieces() -> Iterator[bytes]:
            for _ in range(40):
                yield b"x" * 100_000

        assert small.post("/answers/save/x", content=pieces()).status_code == 413


def test_prompt_handlers_see_prompts_before_they_are_judged(client: httpx.Client) -> None:
    prompt = {
        "1": {"class_type": "Say", "inputs": {"text": "greet me"}},
        "2": {"class_type": "ShowAnything", "inputs": {"source": ["1", 0]}},
    }
    made = client.post("/prompt", json={"prompt": prompt}).json()["prompt_id"]
    assert ended(client, made)["outputs"]["2"]["text"][0] == "hello"
    assert client.post("/prompt", json={"prompt": "no graph"}).status_code == 400


def test_they_answer_while_a_node_computes(client: httpx.Client) -> None:
    waiting = threading.Thread(target=client.get, args=("/answers/slow?seconds=3",))
    waiting.start()
    assert client.get("/answers/list").json()["names"] and waiting.is_alive()
    waiting.join()


def test_after_the_worker_was_started_again_they_are_found_again(client: httpx.Client, packed: Served) -> None:
    before = client.get("/answers/list").json()["pid"]
    packed.app.supervisor.kill_worker()
    end = time.monotonic() + PATIENCE
    while packed.app.supervisor.state == "ready" and time.monotonic() < end:
        time.sleep(0.05)
    assert packed.app.supervisor.wait_ready(PATIENCE)
    assert client.get("/answers/list").json()["pid"] != before


def test_without_the_owners_switch_nothing_answers(tmp_path: Any) -> None:
    from engine.workspace import Workspace

    app = open_app(Workspace(tmp_path), StudioSettings(), job_kinds(), lambda _: None)
    try:
        with running(asgi_app(app, with_page=False)) as port, Served(app, port, []).client() as client:
            assert client.get("/answers/list").status_code == 404
    finally:
        app.jobs.close()
