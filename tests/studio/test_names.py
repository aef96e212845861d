"""No route that takes a name gives out or writes what lies outside its folder: '..', absolute names, links."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from starlette.testclient import TestClient

from engine.graph.catalogue import Catalogue
from engine.graph.registry import Registry
from engine.workspace import Workspace
from studio.app import App
from studio.server import asgi_app, open_app
from studio.settings import StudioSettings
from tests.studio import small
from tests.studio.test_files import png

pytestmark = pytest.mark.slow  # it imports Gradio
SECRET = b"TOP-SECRET-7e1f"
BAD = (
    "../secret.png",
    "..%2fsecret.png",
    "%2e%2e/secret.png",
    "%252e%252e%252fsecret.png",
    "a/../../secret.png",
    "..\\secret.png",
    "..%5csecret.png",
    "{outside}/secret.png",
    "//{outside}/secret.png",
    "C:\\secret.png",
    "file:///{outside}/secret.png",
    "link/secret.png",
    "link.png",
    "x%00.png",
    "~/secret.png",
)
Ask = Callable[[httpx.Client, str], httpx.Response]
picture = {"image": ("a.png", png())}


def get(path: str) -> Ask:
    return lambda client, name: client.get(path.replace("NAME", name))


def upload(field: str) -> Ask:
    return lambda client, name: client.post("/upload/image", files=picture, data={field: name})


def mask(client: httpx.Client, name: str) -> httpx.Response:
    reference = json.dumps({"filename": name, "type": "input"})
    return client.post("/upload/mask", files=picture, data={"original_ref": reference})


def load_image(client: httpx.Client, name: str) -> httpx.Response:
    node = {"class_type": "OpenPicture", "inputs": {"image": name}}
    return client.post("/prompt", json={"prompt": {"1": node}})


ROUTES: dict[str, Ask] = {
    "view": get("/view?type=input&filename=NAME"),
    "view subfolder": get("/view?type=input&subfolder=NAME&filename=secret.png"),
    "view type": get("/view?type=NAME&filename=secret.png"),
    "view of the output": get("/view?filename=NAME"),
    "view preview": get("/view?type=input&preview=webp&filename=NAME"),
    "upload subfolder": upload("subfolder"),
    "upload type": upload("type"),
    "upload name": lambda client, name: client.post("/upload/image", files={"image": (name or "x", png())}),
    "mask": mask,
    "node input": load_image,
    "view_metadata": get("/view_metadata/loras?filename=NAME.safetensors"),
    "view_metadata folder": get("/view_metadata/NAME?filename=secret.safetensors"),
    "models": get("/models/NAME"),
    "experiment": get("/experiment/models/NAME"),
    "model preview": get("/experiment/models/preview/loras/0/NAME"),
    "model preview folder": get("/experiment/models/preview/NAME/0/secret.safetensors"),
    "userdata": get("/userdata/NAME"),
    "userdata write": lambda client, name: client.post(f"/userdata/{name}", content=b"x"),
    "userdata delete": lambda client, name: client.delete(f"/userdata/{name}"),
    "userdata move from": lambda client, name: client.post(f"/userdata/{name}/move/b.json"),
    "userdata move to": lambda client, name: client.post(f"/userdata/mine.json/move/{name}"),
    "userdata list": get("/userdata?recurse=true&dir=NAME"),
    "userdata v2": get("/v2/userdata?path=NAME"),
    "files": get("/internal/files/NAME"),
    "object_info": get("/object_info/NAME"),
    "thumbnail": get("/studio/thumb?type=input&filename=NAME"),
    "picture": get("/studio/picture?type=input&filename=NAME"),
    "run": get("/studio/runs/NAME/metrics"),
    "sample": get("/studio/runs/one/samples/NAME"),
    "static": get("/studio/static/NAME"),
    "dataset": get("/studio/datasets/NAME"),
}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """A workspace with a secret beside its folders, and links in each of them that lead there."""
    root = tmp_path_factory.mktemp("names")
    space = Workspace(root / "space").create()
    app = open_app(space, StudioSettings(), small.KINDS, lambda password: None)
    Catalogue.of(Registry([small.open_picture])).save(space.cache)
    outside = root / "outside"
    outside.mkdir()
    Image.new("RGB", (8, 8)).save(outside / "secret.png")
    inside = (space.root, space.root / "cache", space.runs, outside.parent)
    for folder in inside:
        (folder / "secret.png").write_bytes((outside / "secret.png").read_bytes() + SECRET)
    (outside / "secret.png").write_bytes((outside / "secret.png").read_bytes() + SECRET)
    (outside / "secret.safetensors").write_bytes(SECRET)
    for folder in (space.input, space.output, space.root / "user", space.runs, space.datasets):
        folder.mkdir(exist_ok=True)
        (folder / "link").symlink_to(outside)
        (folder / "link.png").symlink_to(outside / "secret.png")
    (space.root / "user" / "mine.json").write_text("{}")
    yield app
    app.jobs.close()


@pytest.fixture(scope="module")
def client(app: App) -> Iterator[TestClient]:
    served = asgi_app(app, with_page=True)
    with TestClient(served, base_url="http://localhost", client=("127.0.0.1", 50000)) as client:
        assert client.get("/healthz").status_code == 200
        yield client


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("route", ROUTES)
def test_a_name_never_leads_out(client: TestClient, app: App, route: str, bad: str) -> None:
    outside, space = app.workspace.root.parent / "outside", app.workspace.root
    before = {path: path.stat().st_mtime_ns for path in (outside.parent.rglob("*")) if kept(path, space)}
    for prefix in ("", "/api") if route not in OWN else ("",):
        client.base_url = f"http://localhost{prefix}"
        answer = ROUTES[route](client, bad.format(outside=outside))
        assert SECRET not in answer.content
        assert 400 <= answer.status_code < 500 or (answer.status_code in (200, 204) and harmless(route, answer)), (
            answer.text
        )
    assert {path: path.stat().st_mtime_ns for path in outside.parent.rglob("*") if kept(path, space)} == before


NAMELESS = (
    "/studio/stream",
    "/studio/events",
    "/studio/caches",
    "/studio/system",
    "/free",
)  # without end, or they wait for a worker
FIELDS = (
    *(
        "name",
        "filename",
        "subfolder",
        "dir",
        "path",
        "file",
        "folder",
        "type",
        "dataset",
        "picture",
        "image",
        "images",
    ),
    *("run", "model", "sample", "template", "saved", "open", "workflow", "what", "key", "id", "pack", "dest", "to"),
    *("ckpt_name", "lora_name", "original_ref"),
)


def every_route(client: TestClient) -> list[tuple[str, str]]:
    """(method, path) of all that the studio answers to, as its own router has it; ComfyUI's once, not three times."""

    def walk(routes: Any, prefix: str) -> Iterator[tuple[str, str]]:
        for route in routes:
            path = prefix + getattr(route, "path", "")
            if getattr(route, "routes", None):
                yield from walk(route.routes, path)
            for method in getattr(route, "methods", None) or ():
                if method != "HEAD":
                    yield method, path

    server: Any = client.app
    found = list(dict.fromkeys(walk(server._app.routes, "")))
    once = {path for _, path in found if not path.startswith(("/api/", "/comfy/"))}
    return [
        (method, path)
        for method, path in found
        if path in once or path.removeprefix("/comfy").removeprefix("/api") not in once
    ]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_no_route_of_the_router_follows_a_bad_name_wherever_it_stands(client: TestClient, app: App) -> None:
    """In the path, in every field of the query, in every field of the body: also routes that nobody listed above."""
    outside = app.workspace.root.parent / "outside"
    routes = every_route(client)
    assert len(routes) > 90 and ("GET", "/userdata/{file:path}") in routes and ("GET", "/comfy/{name:path}") in routes
    client.base_url = "http://localhost"  # type: ignore[assignment]
    space = app.workspace.root
    before = {path: path.stat().st_mtime_ns for path in outside.parent.rglob("*secret*") if kept(path, space)}
    elsewhere = sorted(path for path in outside.parent.glob("*"))
    for method, path in routes:
        if path in NAMELESS or path.startswith("/gradio_api"):
            continue
        for bad in (one.format(outside=outside) for one in BAD):
            filled = re.sub(r"\{\w+:int\}", "0", path)
            filled = re.sub(r"\{[^}]+\}", bad.replace("\\", "\\\\"), filled)
            fields = dict.fromkeys(FIELDS, bad)
            more: dict[str, Any] = {} if method == "GET" else {"json": {**fields, "images": [bad], "settings": fields}}
            answer = client.request(method, filled, params=fields, **more)
            assert SECRET not in answer.content, (method, path, bad)
            assert answer.status_code < 500 or answer.status_code == 503, (method, path, bad, answer.text[:300])
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert sorted(path for path in outside.parent.glob("*")) == elsewhere


OWN = ("thumbnail", "picture", "run", "sample", "static", "dataset")  # not there under /api
WRITING = ("upload name", "upload subfolder", "userdata write", "userdata move to", "userdata delete")


def kept(path: Path, space: Path) -> bool:
    """What must stay as it is: everything but what was written into the user's own two folders."""
    return path.is_file() and not any(path.is_relative_to(space / own) for own in ("user", "input", "cache"))


def harmless(route: str, answer: httpx.Response) -> bool:
    """200 for a name that is odd but stays inside, and for what is not there yet."""
    return route in WRITING or answer.json() in ({}, [], {"rows": []}, {"steps": [], "prompts": [], "pictures": {}})
