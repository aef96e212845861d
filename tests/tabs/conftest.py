"""A studio without its worker: store, drafts, workspace and the page's own routes."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from engine.errors import EaselError
from engine.workspace import Workspace
from studio import api, live
from studio.app import App
from studio.comfy.requests import error_response
from studio.kinds import job_kinds
from studio.server import open_app
from studio.settings import StudioSettings
from tests.tabs.datasets import png, shown


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    app = open_app(Workspace(tmp_path / "space"), StudioSettings(), job_kinds(), lambda password: None)
    yield app
    app.jobs.close()


@pytest.fixture
def client(app: App) -> Iterator[TestClient]:
    routes = [*api.routes(app), *live.routes(app)]
    with TestClient(Starlette(routes=routes, exception_handlers={EaselError: error_response})) as client:
        yield client


def write_header(path: Path, tensors: dict[str, list[int]], metadata: dict[str, str] | None = None) -> None:
    """A safetensors file whose tensors are all zero, in F16."""
    at, header = 0, {}
    for name, shape in tensors.items():
        size = 2
        for side in shape:
            size *= side
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header | ({"__metadata__": metadata} if metadata else {})).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))


@pytest.fixture
def pictures(client: TestClient) -> list[int]:
    """A dataset "set" of three pictures; their ids by name."""
    assert client.post("/studio/datasets", json={"name": "set"}).status_code == 201
    for colour in ("blue", "green", "red"):
        client.post("/studio/datasets/set/upload", files={"file": (f"{colour}.png", png(colour))}).raise_for_status()
    return [row[0] for row in shown(client)["pictures"]]
