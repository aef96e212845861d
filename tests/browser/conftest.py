"""A real studio on a free port with a workspace of its own. Chromium is in tests/conftest.py: there can be only one."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


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

    def stop(self, how: int = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(20)


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


def start_studio(workspace: Path, port: int | None = None) -> Studio:
    port = port or free_port()
    command = [sys.executable, "-m", "studio.cli", "serve", "--port", str(port), "--workspace", str(workspace)]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    log = (workspace.parent / f"{workspace.name}.log").open("a")
    process = subprocess.Popen(
        [*command, "--no-browser", "--device", "cpu"], cwd=ROOT, env=environment, stdout=log, stderr=log, text=True
    )
    studio = Studio(f"http://127.0.0.1:{port}", workspace, process)
    until(lambda: process.poll() is not None or studio.get("/studio/status"), 60)
    assert process.poll() is None, (workspace.parent / f"{workspace.name}.log").read_text()
    return studio


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    studio = start_studio(tmp_path_factory.mktemp("studio") / "workspace")
    studio.wait_for_worker()
    yield studio
    studio.stop()


UNTRANSLATED = re.compile(
    r"\b(?:tab|generate|dataset|train|gallery|queue|models|system|do|state|phase|kind|metric|role|ledger)\.[a-z_]+\b"
)
