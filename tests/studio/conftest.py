"""Fixtures: a studio at its smallest, served by a real uvicorn on a free port of loopback."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.types import ASGIApp

from engine.workspace import Workspace
from studio.app import App
from studio.kinds import job_kinds
from studio.server import asgi_app, open_app
from studio.settings import StudioSettings
from tests.studio import small

PATIENCE = 120.0  # no test waits so long where nothing is wrong
PACKS = Path(__file__).parents[1] / "custom" / "packs"


@dataclass
class Served:
    app: App
    port: int
    passwords: list[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    def client(self, **more: object) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE, trust_env=False, **more)  # type: ignore[arg-type]


@contextmanager
def running(served: ASGIApp) -> Iterator[int]:
    """An ASGI application behind a real uvicorn on a free port of loopback."""
    listening = socket.create_server(("127.0.0.1", 0))
    settings = uvicorn.Config(served, log_level="warning", proxy_headers=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    end = time.monotonic() + PATIENCE
    while not server.started:
        assert time.monotonic() < end and thread.is_alive()
        time.sleep(0.01)
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("space")


@pytest.fixture(scope="module")
def served(space: Path) -> Iterator[Served]:
    """One studio a test file, with its worker."""
    passwords: list[str] = []
    app = open_app(Workspace(space), StudioSettings(), small.KINDS, passwords.append, "tests.studio.small:setup")
    app.supervisor.start()
    assert app.supervisor.wait_ready(PATIENCE)
    try:
        with running(asgi_app(app, with_page=False)) as port:
            yield Served(app, port, passwords)
    finally:
        app.supervisor.stop()
        app.jobs.close()


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with served.client() as client:
        yield client


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A studio with the packs of tests/custom and a real worker, one a test file."""
    space = tmp_path_factory.mktemp("space")
    shutil.copytree(PACKS, space / "custom_nodes")
    (space / "input").mkdir()
    (space / "input" / "a.txt").write_text("a")
    settings = StudioSettings.model_validate({"device": "cpu", "custom_nodes": {"enabled": True}})
    app = open_app(Workspace(space), settings, job_kinds(), lambda _: None)
    app.supervisor.start()
    try:
        with running(asgi_app(app, with_page=False)) as port:
            yield Served(app, port, [])
    finally:
        app.supervisor.stop()
        app.jobs.close()
