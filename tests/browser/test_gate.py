"""The gate as a real browser meets it: signing in from elsewhere, and a hostile page that tries what a page can.

Chromium takes any name below .localhost to this machine; to the studio it is a stranger's.
"""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from engine.workspace import Workspace
from studio import presence
from studio.server import asgi_app, open_app
from studio.settings import StudioSettings
from tests.studio import small
from tests.studio.conftest import PATIENCE, Served, running, served, space
from tests.studio.test_serve import studio

__all__ = ["served", "space"]  # fixtures

pytestmark = [pytest.mark.browser, pytest.mark.slow]

JOBS: dict[str, dict[str, Any]] = {
    "generate": {
        "prompt": {
            "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
        }
    },
    "tag": {"dataset": "bbdr", "tagger": "tagger"},
    "train": {
        "model": "easel-demo.safetensors",
        "dataset": "bbdr",
        "trigger_word": "bbdr",
        "resolution": 128,
        "steps": 2,
        "rank": 2,
    },
}
HOSTILE = """<!doctype html><title>hostile</title><body><script>
const studio = 'STUDIO', found = {};
async function attempt(name, work) { try { found[name] = await work(); } catch (error) { found[name] = 'refused'; } }
const body = JSON.stringify({prompt: {9: {class_type: 'Hold', inputs: {mode: 'sleep', seconds: 1}}}});
const socket = () => new Promise((done) => {
  const opened = new WebSocket(studio.replace('http', 'ws') + '/ws?clientId=x');
  opened.onopen = () => done('opened'); opened.onerror = () => done('refused');
});
const picture = () => new Promise((done) => {
  const image = new Image(); image.onload = () => done('seen'); image.onerror = () => done('refused');
  image.src = studio + '/view?filename=a.png&type=input';
});
(async () => {
  await attempt('fetch', async () => (await fetch(studio + '/prompt', {method: 'POST', body})).status);
  await attempt('blind', async () => {
    const sent = {method: 'POST', mode: 'no-cors', headers: {'Content-Type': 'text/plain'}, body};
    return (await fetch(studio + '/prompt', sent)).type;
  });
  await attempt('read', async () => (await fetch(studio + '/history')).status);
  await attempt('socket', socket);
  await attempt('picture', picture);
  const frame = document.createElement('iframe');
  const form = document.createElement('form');
  frame.name = form.target = 'f';
  form.method = 'post'; form.action = studio + '/interrupt'; form.enctype = 'text/plain';
  document.body.append(frame, form); form.submit();
  frame.onload = () => { document.title = JSON.stringify(found); };
  setTimeout(() => { document.title = JSON.stringify(found); }, 3000);
})();
</script>"""


@contextmanager
def page_server(folder: Path) -> Iterator[int]:
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize("home", ["hostile.localhost", "localhost"])
def test_a_hostile_page_can_start_stop_read_and_see_nothing(
    served: Served, chromium: Browser, tmp_path: Path, home: str
) -> None:
    """Also from another port of localhost, which browsers call the same site."""
    Image.new("RGB", (2, 2)).save(served.app.workspace.input / "a.png")
    before = served.app.jobs.count()
    (tmp_path / "index.html").write_text(HOSTILE.replace("STUDIO", f"http://localhost:{served.port}"))
    with page_server(tmp_path) as port:
        page = chromium.new_page()
        page.goto(f"http://{home}:{port}/")
        page.wait_for_function("document.title.startsWith('{')", timeout=PATIENCE * 1000)
        found = json.loads(page.title())
        page.close()
    assert served.app.jobs.count() == before
    assert {name: found[name] for name in ("fetch", "read", "socket", "picture")} == {
        "fetch": "refused",
        "read": "refused",
        "socket": "refused",
        "picture": "refused",
    }


def test_from_elsewhere_one_signs_in_and_the_page_works_behind_it(chromium: Browser, tmp_path: Path) -> None:
    passwords: list[str] = []
    app = open_app(Workspace(tmp_path), StudioSettings(), small.KINDS, passwords.append, "tests.studio.small:setup")
    app.supervisor.start()
    try:
        with running(asgi_app(app)) as port:
            context = chromium.new_context(locale="zh-CN")
            page = context.new_page()
            problems: list[str] = []
            page.on("response", lambda r: problems.append(f"{r.status} {r.url}") if r.status in (401, 403) else None)
            page.goto(f"http://studio.localhost:{port}/?x=1")
            assert page.url == f"http://studio.localhost:{port}/login?next=%2F%3Fx%3D1"
            assert len(passwords) == 1 and "登录" in page.content()
            page.fill("#password", "wrong one")
            page.click("button")
            expect(page.locator("body")).to_contain_text("密码错误")
            page.fill("#password", passwords[0])
            page.click("button")
            page.wait_for_selector("gradio-app .tabs, gradio-app [role=tablist]", timeout=PATIENCE * 1000)
            assert page.url == f"http://studio.localhost:{port}/?x=1"
            sid = page.evaluate(
                "new Promise((done) => { const s = new WebSocket('ws://' + location.host + '/ws?clientId=me');"
                " s.onmessage = (m) => done(JSON.parse(m.data).data.sid); s.onerror = () => done('refused'); })"
            )
            assert sid == "me"
            assert problems == []
            context.close()
    finally:
        app.supervisor.stop()
        app.jobs.close()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
def test_after_every_tab_and_one_job_of_each_kind_the_server_still_holds_no_torch(
    chromium: Browser, tmp_path: Path
) -> None:
    with studio(tmp_path, "--device", "cpu") as (process, found):
        page = chromium.new_page()
        page.goto(found.url)
        tabs = page.locator("#ez-tabs [role=tab]")
        tabs.first.wait_for(timeout=PATIENCE * 1000)
        for number in range(tabs.count()):
            tabs.nth(number).click()
        page.close()
        presence.call(found, "POST", "/studio/datasets/demo", {})
        for kind, settings in JOBS.items():
            if kind == "generate":
                presence.call(found, "POST", "/prompt", settings)
            else:
                presence.call(found, "POST", "/studio/jobs", {"kind": kind, "settings": settings})
        end = time.monotonic() + 400
        while (jobs := presence.call(found, "GET", "/studio/jobs")) and not all(job["finished"] for job in jobs):
            assert time.monotonic() < end, [(job["kind"], job["state"], job["progress"]) for job in jobs]
            time.sleep(0.5)
        assert {job["kind"]: job["state"] for job in jobs} == dict.fromkeys(JOBS, "done"), jobs
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        assert not [library for library in ("libtorch", "libc10", "onnxruntime") if library in maps]
        assert psutil.Process(process.pid).memory_info().rss <= 300e6
