"""The endpoint tool against a real server on this machine that answers as told."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

from engine.errors import Cancelled, EaselError
from taggers.endpoint import (
    EndpointEmpty,
    EndpointNoKey,
    EndpointNotJson,
    EndpointReader,
    EndpointRefused,
    EndpointTimeout,
    EndpointTool,
    EndpointUnreachable,
    EndpointWrongKey,
)
from taggers.tool import About, Answer

Reply = tuple[int, str, bytes]


class Server(ThreadingHTTPServer):
    """`script(request number)` says what to answer; what was asked is kept."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.script: Callable[[int], Reply] = lambda n: said("a red card")
        self.lock = threading.Lock()
        self.pause = 0.0  # between two bytes of an answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            self.server.asked.append((self.path, dict(self.headers), json.loads(body)))
            number = len(self.server.asked)
        status, kind, data = self.server.script(number)
        if status == 0:  # hang up in the middle
            self.connection.close()
            return
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if status == 302:
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if not self.server.pause:
            self.wfile.write(data)
            return
        with contextlib.suppress(OSError):  # the other side has enough
            for place in range(len(data)):
                self.wfile.write(data[place : place + 1])
                time.sleep(self.server.pause)

    do_GET = do_POST

    def log_message(self, *_: Any) -> None: ...


def said(text: str | None, finish: str = "stop") -> Reply:
    answer = {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}]}
    return 200, "application/json", json.dumps(answer).encode()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def ask(server: Server, pictures: int = 1, **settings: Any) -> list[Answer]:
    tool = EndpointTool(model="llava", base_url=server.url, **{"retries": 0, "timeout": 5, **settings})
    reader = EndpointReader(tool, pause=0.01)
    try:
        prepared = [reader.prepare(Image.new("RGB", (300, 100), (250, 5, 5))) for _ in range(pictures)]
        found = reader.read(prepared, [About(tags=("1girl", "smile"), name=f"{n}.png") for n in range(pictures)])
        for one in found:
            if isinstance(one, EaselError):
                raise one
        return [one for one in found if isinstance(one, Answer)]
    finally:
        reader.close()


def test_the_picture_and_the_question_arrive_and_the_answer_comes_back(server: Server) -> None:
    answers = ask(server, use_tags=True, prompt="What is {name}?", system="Be brief.", side=64, temperature=0.5)
    assert answers == [Answer("a red card")]
    path, headers, body = server.asked[0]
    assert (path, body["model"], body["temperature"], body["stream"]) == ("/v1/chat/completions", "llava", 0.5, False)
    assert "Authorization" not in headers
    system, user = body["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert user["content"][1]["text"].startswith("What is 0.png? These tags were read in the image")
    assert user["content"][1]["text"].endswith("1girl, smile.")
    kind, data = user["content"][0]["image_url"]["url"].split(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (64, 21)


def test_the_key_comes_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "sk-123")
    ask(server, key_variable="MY_API_KEY")
    assert server.asked[0][1]["Authorization"] == "Bearer sk-123"
    assert "sk-123" not in json.dumps(EndpointTool(model="a", key_variable="MY_API_KEY").identity())
    for wrong in ("HOME", "AWS_SECRET_ACCESS_KEY", "my_api_key"):
        with pytest.raises(ValueError):
            EndpointTool(model="a", key_variable=wrong)


def test_several_are_asked_at_once_and_stay_in_order(server: Server) -> None:
    together = threading.Barrier(3, timeout=30)

    def script(number: int) -> Reply:
        together.wait()
        return said(str(server.asked[number - 1][2]["messages"][0]["content"][1]["text"]))

    server.script = script
    answers = ask(server, 3, batch_size=3, prompt="{name}")
    assert [answer.text for answer in answers] == ["0.png", "1.png", "2.png"]


def test_what_may_pass_is_tried_again(server: Server) -> None:
    server.script = lambda n: (503, "text/plain", b"loading") if n < 3 else said("there")
    assert ask(server, retries=2) == [Answer("there")]
    server.asked.clear()
    server.script = lambda n: (0, "", b"") if n < 2 else said("there")
    assert ask(server, retries=1) == [Answer("there")]
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        ((200, "text/html", b"<!DOCTYPE html><title>Router</title>"), EndpointNotJson, "web page"),
        ((200, "text/plain", b"hello"), EndpointNotJson, "5 bytes of text/plain"),
        (
            (404, "application/json", b'{"error": {"message": "model not found"}}'),
            EndpointRefused,
            "404, model not found",
        ),
        ((400, "application/json", b'{"error": "no pictures"}'), EndpointRefused, "400, no pictures"),
        ((502, "text/html", b"<html>Bad gateway</html>"), EndpointRefused, "502, a web page"),
        ((401, "application/json", b"{}"), EndpointNoKey, "OPENAI_API_KEY"),
        ((302, "text/html", b""), EndpointRefused, "302"),
        ((200, "application/json", b'{"choices": []}'), EndpointEmpty, "see pictures"),
        ((200, "application/json", b'{"error": "out of memory"}'), EndpointEmpty, "out of memory"),
        (said(None), EndpointEmpty, "None"),
    ],
)
def test_every_way_to_fail_has_its_own_error(
    server: Server, reply: Reply, error: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script = lambda n: reply
    with pytest.raises(error, match=words):
        ask(server)
    assert len(server.asked) == 1


def test_a_server_that_is_silent_or_gone_is_told_apart(server: Server) -> None:
    def slow(number: int) -> Reply:
        time.sleep(0.5)
        return said("late")

    server.script = slow
    with pytest.raises(EndpointTimeout, match=r"0\.1 s, 2 times"):
        ask(server, timeout=0.1, retries=1)
    server.shutdown()
    server.server_close()
    with pytest.raises(EndpointUnreachable, match="running"):
        ask(server)


def test_an_answer_that_comes_in_drops_is_late_as_well(server: Server) -> None:
    server.script = lambda n: (200, "application/json", b" " * 10_000)
    server.pause = 0.02
    with pytest.raises(EndpointTimeout, match=r"0\.2 s, 1 times"):
        ask(server, timeout=0.2)


def test_a_key_with_a_line_end_is_trimmed_and_one_that_no_header_takes_is_not_told(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret\n")
    ask(server)
    assert server.asked[0][1]["Authorization"] == "Bearer secret"
    monkeypatch.setenv("OPENAI_API_KEY", "geheim\nü")
    with pytest.raises(EndpointWrongKey, match="OPENAI_API_KEY") as found:
        ask(server)
    assert "geheim" not in str(found.value)


def test_text_in_parts_and_halves_of_characters_become_text(server: Server) -> None:
    parts = [{"type": "text", "text": "a red"}, {"type": "text", "text": " card"}]
    server.script = lambda n: (
        200,
        "application/json",
        json.dumps({"choices": [{"message": {"content": parts}}]}).encode(),
    )
    assert ask(server) == [Answer("a red card")]
    server.script = lambda n: said("half \ud83d and\0 whole \U0001f600")
    assert ask(server) == [Answer("half ? and whole \U0001f600")]


@pytest.mark.parametrize("url", [f"http://{'a' * 300}/v1", "http://127.0.0.1:9/ä", "http://127.0.0.1:abc/v1"])
def test_an_address_that_can_not_be_is_not_reached(url: str) -> None:
    reader = EndpointReader(EndpointTool(model="a", base_url=url, retries=0, timeout=1), pause=0.01)
    with pytest.raises(EndpointUnreachable):
        reader.read([reader.prepare(Image.new("RGB", (8, 8)))], [About()])
    reader.close()


def test_a_server_that_does_not_answer_holds_up_no_cancel(server: Server) -> None:
    answer = threading.Event()
    server.script = lambda n: said("late") if answer.wait(60) else said("")
    reader = EndpointReader(EndpointTool(model="llava", base_url=server.url, timeout=60, batch_size=2))
    reader.stop_when(lambda: len(server.asked) == 2)  # while both are being waited for
    try:
        with pytest.raises(Cancelled):
            reader.read([reader.prepare(Image.new("RGB", (8, 8)))] * 2, [About(), About()])
        assert not answer.is_set()
    finally:
        answer.set()
        reader.close()


def test_thoughts_and_cut_answers(server: Server) -> None:
    server.script = lambda n: said("<think>hm</think>\n A card.", finish="length")
    assert ask(server) == [Answer("A card.", cut=True)]
    server.script = lambda n: said("1girl, red hair,  1girl")
    assert ask(server, write="tags")[0].tags == ("1girl", "red_hair")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a/v1", "http://name:word@a/v1", "localhost:11434", ""])
def test_only_web_addresses_are_taken(url: str) -> None:
    with pytest.raises(ValueError):
        EndpointTool(model="a", base_url=url)
