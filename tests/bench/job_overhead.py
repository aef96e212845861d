"""What a job costs beside its work: submit to first event and to done, requests, jobs per second.

python -m tests.bench.job_overhead
"""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from engine.jobs.store import JobStore
from engine.jobs.supervisor import Supervisor
from engine.workspace import Workspace
from tests.jobs.kinds import kinds


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder)).create()
        store = JobStore(workspace.database)
        supervisor = Supervisor(store, kinds(), workspace, "cpu", "tests.jobs.kinds:setup")
        supervisor.start()
        try:
            supervisor.wait_ready()
            measure(supervisor)
        finally:
            supervisor.stop()
            store.close()


def measure(supervisor: Supervisor) -> None:
    done, moments = threading.Event(), {}

    def hear(_: str, event: str, data: dict[str, Any]) -> None:
        if event == "adding":
            moments["first event"] = time.perf_counter()
        elif event == "state" and data["state"] == "done":
            moments["done"] = time.perf_counter()
            done.set()

    supervisor.subscribe(hear)
    taken: dict[str, list[float]] = {"submit": [], "first event": [], "done": [], "request": []}
    for _ in range(200):
        done.clear()
        start = time.perf_counter()
        supervisor.submit("add", {})
        taken["submit"].append(time.perf_counter() - start)
        done.wait()
        for name in ("first event", "done"):
            taken[name].append(moments[name] - start)
        start = time.perf_counter()
        supervisor.request("double", 2)
        taken["request"].append(time.perf_counter() - start)
    for name, seconds in taken.items():
        seconds.sort()
        print(f"{name:12} median {seconds[100] * 1e3:6.2f} ms   99 % {seconds[197] * 1e3:6.2f} ms")
    start = time.perf_counter()
    jobs = [supervisor.submit("add", {}) for _ in range(500)]
    supervisor.wait(jobs[-1].id)
    print(f"{500 / (time.perf_counter() - start):.0f} jobs a second")


if __name__ == "__main__":
    main()
