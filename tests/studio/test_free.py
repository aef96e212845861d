"""POST /free through the real worker: what goes, what stays, and what is no request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.workspace import Workspace
from studio.kinds import job_kinds
from studio.server import asgi_app, open_app
from studio.settings import StudioSettings
from tests.studio.conftest import PATIENCE, Served, running
from tests.studio.test_prompt import ended

pytestmark = pytest.mark.slow
PICTURE = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 255}},
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    space: Path = tmp_path_factory.mktemp("space")
    settings = StudioSettings.model_validate({"device": "cpu"})
    app = open_app(Workspace(space), settings, job_kinds(), lambda _: None)
    app.supervisor.start()
    try:
        assert app.supervisor.wait_ready(4 * PATIENCE)
        with running(asgi_app(app, with_page=False)) as port, Served(app, port, []).client() as client:
            yield client
    finally:
        app.supervisor.stop()
        app.jobs.close()


def cached(client: httpx.Client) -> list[str]:
    """The nodes of PICTURE that did not have to run."""
    made = client.post("/prompt", json={"prompt": PICTURE}).json()["prompt_id"]
    messages: list[Any] = ended(client, made)["status"]["messages"]
    return sorted(next(data["nodes"] for name, data in messages if name == "execution_cached"))


def test_free_memory_drops_results_and_nothing_else_does(client: httpx.Client) -> None:
    assert cached(client) == []
    assert cached(client) == ["1", "2"]
    for body in ({}, {"unload_models": True}, {"free_memory": False}, {"free_memory": "yes"}, {"free_memory": 1}):
        answer = client.post("/free", json=body)
        assert answer.status_code == 200 and answer.content == b"", body
        assert cached(client) == ["1", "2"], body
    assert client.post("/api/free", json={"free_memory": True, "unload_models": True}).status_code == 200
    assert client.get("/studio/caches").json()["finals"]["entries"] == 0
    assert cached(client) == []


def test_what_is_no_object_is_refused(client: httpx.Client) -> None:
    for body in ("[]", "{", '"free_memory"'):
        assert client.post("/free", content=body, headers={"Content-Type": "application/json"}).status_code == 400, body
