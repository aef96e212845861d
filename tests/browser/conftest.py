"""A real studio on a free port with a workspace of its own. Chromium is in tests/conftest.py: there can be only one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from engine.workflows import PictureSettings, text_to_image
from engine.workspace import Workspace
from studio import presence
from tabs.words import table

ROOT = Path(__file__).resolve().parents[2]
ENDED = ("done", "failed", "cancelled")
expect.set_options(timeout=20_000)  # a busy machine is no failure
PICTURE = PictureSettings("easel-demo.safetensors", "a red star", width=128, height=128, steps=4, seed=1)


@dataclass
class Studio:
    """A running `studio serve`."""

    url: str
    workspace: Path
    process: subprocess.Popen[str]

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.loads(answer.read())

    def post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def wait_for_worker(self, seconds: float = 120) -> None:
        until(lambda: self.get("/studio/status")["worker"] == "ready", seconds)

    def wait_for_job(self, job_id: str, states: tuple[str, ...] = ENDED, seconds: float = 120) -> str:
        """The job's state as soon as it is one of these."""
        return until(lambda: (state := self.get(f"/studio/jobs/{job_id}")["state"]) in states and state, seconds)

    def stop(self, how: int = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(60)


def until(condition: Any, seconds: float, pause: float = 0.25) -> Any:
    """The condition's first true value, or a failure after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if value := condition():
                return value
        except OSError:
            pass
        time.sleep(pause)
    raise AssertionError(f"not within {seconds} s: {condition}")


def start_studio(workspace: Path) -> Studio:
    """It takes a free port by itself and leaves word of it: one that was found free before may be taken meanwhile."""
    command = [sys.executable, "-m", "studio.cli", "serve", "--port", "0", "--workspace", str(workspace)]
    environment = {"OMP_NUM_THREADS": "2", **os.environ}
    log = (workspace.parent / f"{workspace.name}.log").open("a")
    process = subprocess.Popen(
        [*command, "--no-browser", "--device", "cpu"], cwd=ROOT, env=environment, stdout=log, stderr=log, text=True
    )
    try:
        found = until(lambda: process.poll() is not None or presence.find(Workspace(workspace)), 240)
        assert isinstance(found, presence.Presence), (workspace.parent / f"{workspace.name}.log").read_text()
    except BaseException:
        process.kill()  # or it would take its share of the machine from every test that follows
        process.wait()
        raise
    return Studio(f"http://127.0.0.1:{found.port}", workspace, process)


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    studio = start_studio(tmp_path_factory.mktemp("studio") / "workspace")
    studio.wait_for_worker()
    yield studio
    studio.stop()


@pytest.fixture(scope="session")
def furnished(studio: Studio) -> Studio:
    """The studio with something in every tab: a tagged dataset, a picture, a job that failed."""
    studio.post("/studio/datasets/demo", {})
    tagging = studio.post("/studio/jobs", {"kind": "tag", "settings": {"dataset": "bbdr", "tagger": "tagger"}})
    broken = studio.workspace / "models" / "checkpoints" / "broken.safetensors"
    broken.parent.mkdir(parents=True, exist_ok=True)
    broken.write_text("this is no model", encoding="utf-8")
    failing = studio.post("/prompt", {"prompt": text_to_image(replace(PICTURE, ckpt_name=broken.name))})
    picture = studio.post("/prompt", {"prompt": text_to_image(PICTURE)})
    for job in (tagging["id"], failing["prompt_id"], picture["prompt_id"]):
        studio.wait_for_job(job)
    return studio


def open_page(
    chromium: Browser, studio: Studio, *, width: int = 1440, language: str = "en", theme: str = "light"
) -> tuple[Page, list[str]]:
    """A page of its own in the browser, and what its console says."""
    context = chromium.new_context(
        viewport={"width": width, "height": 900}, locale="zh-CN" if language == "zh" else "en-US"
    )
    page = context.new_page()
    page.set_default_timeout(60_000)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if _is_ours(message) else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"{studio.url}/?__theme={theme}")
    until_open(page)
    return page, said


def until_open(page: Page) -> None:
    """The page is there, and its forms hold what was typed into them before."""
    page.wait_for_selector("easel-switches button")
    page.wait_for_selector("#ez-tabs")
    page.wait_for_selector("html[data-restored~=generate][data-restored~=train]")


def _is_ours(message: ConsoleMessage) -> bool:
    """A complaint of the page itself. The official editor, in its frame, says things of its own."""
    return message.type in ("error", "warning") and "/comfy/" not in message.location.get("url", "")


def until_kept(studio: Studio, tab: str, **values: Any) -> None:
    """The server has heard what was typed: a form's button would send the same."""
    draft = studio.workspace / "drafts" / f"{tab}.json"
    until(lambda: json.loads(draft.read_text(encoding="utf-8")).items() >= values.items(), 20, pause=0.05)


def open_tab(page: Page, name: str) -> None:
    """Click the tab, in the overflow menu where there is no room for it."""
    button = page.locator(f"#ez-tabs button[role=tab][data-tab-id='{name}']")
    if not button.count():
        page.locator("#ez-tabs .overflow-menu > button").click()
        language = "zh" if page.evaluate("document.documentElement.lang").startswith("zh") else "en"
        button = page.locator("#ez-tabs .overflow-dropdown").get_by_text(table(language)[f"tab.{name}"], exact=True)
    button.click()
    page.wait_for_selector(f"#tab-{name}", state="visible")


UNTRANSLATED = re.compile(
    r"\b(?:tab|generate|workflow|input|dataset|train|gallery|queue|models|system|do|state|phase|kind|metric|role|ledger)\.[a-z_]+\b"
)
