"""The recorded requests of ComfyUI, sent to this studio: the same status, and every field that was there then."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.workspace import Workspace
from studio.server import asgi_app, open_app
from studio.settings import StudioSettings
from tests.studio import small
from tests.studio.conftest import PATIENCE, Served, running
from tests.studio.test_prompt import ended, hold, prompt

RECORDED = json.loads((Path(__file__).parent / "data" / "http_samples.json").read_text(encoding="utf-8"))

pytestmark = pytest.mark.slow  # its worker imports torch for the names of all nodes

# Where newer servers answer otherwise, or we do on purpose: (request, case) -> status.
OTHERWISE = {
    ("POST /prompt", "not json"): 400,  # a client's mistake is not a failure of the server
    ("POST /prompt", "own prompt_id"): 400,  # must be a UUID since the jobs API
}
NAMES_DIFFER = ("missing class", "no class_type", "cycle")  # of the error; tests/graph/test_validation.py compares them


@pytest.fixture(scope="module")
def served(space: Path) -> Iterator[Served]:
    app = open_app(
        Workspace(space),
        StudioSettings(),
        small.KINDS,
        lambda password: None,
        "tests.studio.small:setup_with_all_nodes",
    )
    app.supervisor.start()
    assert app.supervisor.wait_ready(120)
    header = json.dumps({"a": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    for name in ("checkpoints/ref_sd15", "loras/ref_sd15_kohya", "embeddings/ref_ti"):
        file = app.workspace.models / f"{name}.safetensors"
        file.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    try:
        with running(asgi_app(app, with_page=False)) as port:
            yield Served(app, port, [])
    finally:
        app.supervisor.stop()
        app.jobs.close()


@pytest.fixture(scope="module")
def answers(served: Served) -> list[httpx.Response]:
    """All of them in their order, while one prompt is running and one has run."""
    with served.client() as client:
        done = client.post("/prompt", json={"prompt": prompt(), "client_id": "x"}).json()["prompt_id"]
        ended(client, done)
        held = client.post("/prompt", json={"prompt": hold(seconds=60), "client_id": "x"}).json()["prompt_id"]
        end = time.monotonic() + PATIENCE
        while not client.get("/queue").json()["queue_running"]:
            assert time.monotonic() < end
        found = [send(client, row) for row in RECORDED]
        client.post("/queue", json={"clear": True})
        client.post("/interrupt", json={"prompt_id": held})
    return found


def send(client: httpx.Client, row: dict[str, Any]) -> httpx.Response:
    method, _, path = row["request"].partition(" ")
    if "body" not in row:
        return client.request(method, path)
    body = row["body"]
    return client.request(method, path, content=body if isinstance(body, str) else json.dumps(body))


def name_of(row: dict[str, Any]) -> str:
    return f"{row['request']} {row.get('case', '')}".strip()


@pytest.mark.parametrize("number", range(len(RECORDED)), ids=[name_of(row) for row in RECORDED])
def test_a_recorded_request_is_answered_as_it_was(answers: list[httpx.Response], number: int) -> None:
    recorded, answer = RECORDED[number], answers[number]
    key = (recorded["request"], recorded.get("case", ""))
    assert answer.status_code == OTHERWISE.get(key, recorded["status"]), answer.text[:300]
    if key in OTHERWISE or (recorded["status"] == 404 and not recorded["response"]):
        return
    if (recorded["content_type"] or "").startswith("application/json"):
        assert answer.headers["content-type"].startswith("application/json")
        theirs = recorded["response"]
        if recorded["request"] == "GET /history":  # the recording was cut
            theirs = next(row["response"] for row in RECORDED if row["request"] == "GET /history?max_items=1")
        same_shape(theirs, answer.json(), loose=recorded.get("case") in NAMES_DIFFER)
    elif recorded["status"] != 200 or recorded["request"].startswith("GET"):
        assert answer.text == recorded["response"]
    if recorded.get("headers"):
        assert set(map(str.lower, recorded["headers"])) <= set(map(str.lower, answer.headers))


def test_all_that_were_recorded_are_sent(answers: list[httpx.Response]) -> None:
    assert len(answers) == len(RECORDED) == 69


# Depends on the nodes that ran; on how the server is written; help texts, which are not taken over.
NOT_COMPARED = ("images", "traceback", "exception_type", "input_config", "inputs", "tooltip", "output_tooltips")


def same_shape(theirs: Any, ours: Any, *, loose: bool = False, where: str = "") -> None:
    """Every field of theirs is here with a value of its type. What is kept by an id is compared by its first value."""
    if isinstance(theirs, dict):
        assert isinstance(ours, dict), where
        if not theirs or is_by_id(theirs):
            if theirs and ours:
                same_shape(next(iter(theirs.values())), next(iter(ours.values())), loose=loose, where=f"{where}.*")
            return
        for key, value in theirs.items():
            assert key in ours or key in NOT_COMPARED, f"{where}.{key} is missing"
            if key in ("type", "message") and isinstance(value, str) and not loose and "error" in where:
                assert ours[key] == value, f"{where}.{key}"
            if key not in NOT_COMPARED:
                same_shape(value, ours[key], loose=loose, where=f"{where}.{key}")
    elif isinstance(theirs, list):
        assert isinstance(ours, list), where
        if theirs and ours:
            same_shape(theirs[0], ours[0], loose=loose, where=f"{where}[0]")
    elif isinstance(theirs, int | float) and not isinstance(theirs, bool):
        assert isinstance(ours, int | float) and not isinstance(ours, bool), where
    elif theirs is not None:
        assert isinstance(ours, type(theirs)), where


def is_by_id(found: dict[str, Any]) -> bool:
    """{"3": ..., "2db24444-...": ...}: the keys are ids and differ from run to run."""
    return all(len(key) == 36 or key.isdecimal() for key in found)
