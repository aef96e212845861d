"""POST /prompt and GET /object_info while a node holds the worker's main thread, and just after its SIGKILL.

    python -m tests.bench.latency [--requests 200]

The bound: at most 200 ms at the 99th percentile. The studio is the real one, with the nodes of tests/studio/small.py.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx

from engine.workspace import Workspace
from studio.app import App
from studio.server import asgi_app, open_app
from studio.settings import StudioSettings
from tests.studio import small
from tests.studio.conftest import running

PROMPT = {
    "1": {"class_type": "Number", "inputs": {"value": 3}},
    "2": {"class_type": "Show", "inputs": {"value": ["1", 0]}},
}
BUSY = {"9": {"class_type": "Hold", "inputs": {"mode": "spin", "seconds": 60}}}


def measure(requests: int) -> dict[str, float]:
    """Milliseconds by what was measured."""
    with ExitStack() as stack:
        space = Workspace(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        app = open_app(space, StudioSettings(), small.KINDS, print, "tests.studio.small:setup")
        stack.callback(app.jobs.close)
        app.supervisor.start()
        stack.callback(app.supervisor.stop)
        app.supervisor.wait_ready(60)
        port = stack.enter_context(running(asgi_app(app, with_page=False)))
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60))
        client.get("/object_info")

        def post() -> None:
            assert client.post("/prompt", json={"prompt": PROMPT}).status_code == 200

        def ask() -> None:
            assert client.get("/object_info").status_code == 200

        found = {"idle POST /prompt": p99(post, requests)}
        client.post("/queue", json={"clear": True})
        client.post("/prompt", json={"prompt": BUSY, "front": True})
        until_running(app)
        found["busy POST /prompt"] = p99(post, requests)
        found["busy GET /object_info"] = p99(ask, requests)
        app.supervisor.kill_worker()
        found["killed POST /prompt"] = p99(post, requests)
        client.post("/queue", json={"clear": True})
        return found


def p99(call: Callable[[], None], requests: int) -> float:
    taken = []
    for _ in range(requests):
        begin = time.perf_counter()
        call()
        taken.append((time.perf_counter() - begin) * 1000)
    return statistics.quantiles(taken, n=100)[98]


def until_running(app: App) -> None:
    end = time.monotonic() + 60
    while not any(job.settings["prompt"] == BUSY for job in app.jobs.held()):
        assert time.monotonic() < end
        time.sleep(0.01)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200)
    for name, milliseconds in measure(parser.parse_args().requests).items():
        print(f"{name:24} {milliseconds:7.1f} ms")
