"""Many clients, slow clients, huge prompts."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import psutil
import pytest
from websockets.sync.client import connect

from tests.studio.conftest import PATIENCE, Served
from tests.studio.test_prompt import NUMBER, ended, hold, messages_until_end, prompt

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("settled")]


def test_of_200_prompts_queued_at_once_by_8_clients_none_is_lost_and_each_clients_order_is_kept(served: Served) -> None:
    def send(client_number: int) -> list[str]:
        with served.client() as client:
            return [client.post("/prompt", json={"prompt": prompt()}).json()["prompt_id"] for _ in range(25)]

    with served.client() as client:
        holding = client.post("/prompt", json={"prompt": hold(seconds=60.0)}).json()["prompt_id"]
        with ThreadPoolExecutor(8) as pool:
            sent = list(pool.map(send, range(8)))
        waiting = [row[1] for row in client.get("/queue").json()["queue_pending"]]
        client.post("/interrupt", json={"prompt_id": holding})
        for ids in sent:
            assert [job_id for job_id in waiting if job_id in ids] == ids
            ended(client, ids[-1])
        done = client.get("/history").json()
        assert all(done[job_id]["status"]["completed"] for ids in sent for job_id in ids)


def test_a_client_that_never_reads_holds_up_nobody(served: Served) -> None:
    dead = socket.create_connection(("127.0.0.1", served.port))
    dead.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    key = b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    upgrade = b"Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    dead.sendall(b"GET /ws?clientId=s HTTP/1.1\r\n" + upgrade + key)
    try:
        with served.client() as client, connect(f"{served.ws}?clientId=s") as alive:
            for _ in range(20):
                made = client.post("/prompt", json={"prompt": prompt(), "client_id": "s"}).json()["prompt_id"]
                begin = time.monotonic()
                messages_until_end(alive, made)
                assert time.monotonic() - begin < 20
    finally:
        dead.close()


def test_a_websocket_that_talks_nonsense_is_only_ignored(served: Served) -> None:
    with connect(f"{served.ws}?clientId=n") as socket_:
        for message in ("{", "[1]", '{"type": "feature_flags", "data": 3}', b"\x00\xff", "x" * 200_000, "[" * 50_000):
            socket_.send(message)
        with served.client() as client:
            made = client.post("/prompt", json={"prompt": prompt(), "client_id": "n"}).json()["prompt_id"]
        assert messages_until_end(socket_, made)


def chain(length: int) -> dict[str, Any]:
    """That many Show nodes over one Number, each with its own."""
    nodes: dict[str, Any] = {}
    for number in range(length // 2):
        nodes[f"n{number}"] = {"class_type": "Number", "inputs": {"value": number}}
        nodes[f"s{number}"] = {"class_type": "Show", "inputs": {"value": [f"n{number}", 0]}}
    return nodes


def test_100_000_nodes_that_are_all_wrong_are_refused_while_others_are_served(served: Served) -> None:
    nodes = {str(n): {"class_type": "Show", "inputs": {"value": [str(n - 1), 5]}} for n in range(100_000)}
    body = json.dumps({"prompt": nodes}).encode()
    taken: list[float] = []
    done = threading.Event()

    asking = threading.Thread(target=_ask_until, args=(served, done, taken))
    asking.start()
    try:
        with served.client() as client:
            answer = client.post("/prompt", content=body, timeout=120)
    finally:
        done.set()
        asking.join()
    assert answer.status_code == 400 and answer.json()["error"]["type"] == "prompt_outputs_failed_validation"
    assert len(answer.json()["node_errors"]) <= 1000
    assert max(taken) < 5


def test_a_prompt_of_50_mb_is_taken_and_run_in_bounded_time_and_memory_while_others_are_served(served: Served) -> None:
    """As one long text, and as a hundred thousand nodes."""
    long = prompt(**{"1": {**NUMBER, "_meta": {"title": "x" * (50 * 2**20)}}})
    many = prompt(**{f"n{n}": {**NUMBER, "_meta": {"title": "x" * 440}} for n in range(100_000)})
    for nodes in (long, many):
        body = json.dumps({"prompt": nodes}).encode()
        assert 50_000_000 < len(body) < 64 * 2**20
        taken: list[float] = []
        done = threading.Event()
        with served.client() as client, memory_peak() as peak:
            asking = threading.Thread(target=_ask_until, args=(served, done, taken))
            asking.start()
            begin = time.monotonic()
            try:
                made = client.post("/prompt", content=body, timeout=120).json()["prompt_id"]
                assert time.monotonic() - begin < 60
                entry = ended(client, made)
            finally:
                done.set()
                asking.join()
            client.post("/history", json={"delete": [made]})
        assert entry["outputs"] == {"2": {"text": ["2"]}} and entry["status"]["completed"]
        assert len(taken) > 2 and max(taken) < 30  # under 1 s where nothing else runs on the machine
        assert peak() < 20 * len(body)


@contextmanager
def memory_peak() -> Iterator[Callable[[], int]]:
    """How much this process has grown at most, in bytes."""
    process = psutil.Process()
    before, top, done = process.memory_info().rss, 0, threading.Event()

    def watch() -> None:
        nonlocal top
        while not done.wait(0.02):
            top = max(top, process.memory_info().rss - before)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield lambda: top
    finally:
        done.set()
        watching.join()


def _ask_until(served: Served, done: threading.Event, taken: list[float]) -> None:
    with served.client() as client:
        while not done.is_set():
            begin = time.monotonic()
            client.get("/prompt")
            taken.append(time.monotonic() - begin)
            time.sleep(0.02)


def test_a_prompt_over_the_limit_is_refused_before_it_is_read(served: Served) -> None:
    with served.client() as client:
        answer = client.post("/prompt", content=b" " * (65 * 2**20))
    assert answer.status_code == 413


def test_10_000_nodes_are_taken_and_run(client: httpx.Client) -> None:
    made = client.post("/prompt", json={"prompt": chain(10_000)}, timeout=120)
    assert made.status_code == 200
    assert len(ended(client, made.json()["prompt_id"])["outputs"]) == 5_000


def test_a_client_may_come_and_go_a_hundred_times(served: Served) -> None:
    for _ in range(100):
        with connect(f"{served.ws}?clientId=again") as socket_:
            assert json.loads(socket_.recv(timeout=PATIENCE))["data"]["sid"] == "again"
