"""What the tests of jobs watch with: a subscriber that keeps what it heard, and waiting for a condition."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.jobs.store import JobStore
from engine.jobs.types import JobState

PATIENCE = 120.0  # no test waits so long where nothing is wrong


class Heard:
    """A subscriber that keeps what it heard and can wait for more."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        self._more = threading.Condition()

    def __call__(self, job_id: str, event: str, data: dict[str, Any]) -> None:
        with self._more:
            self.events.append((job_id, event, data))
            self._more.notify_all()

    def named(self, event: str, job_id: str | None = None) -> list[dict[str, Any]]:
        return [data for job, name, data in list(self.events) if name == event and job_id in (None, job)]

    def states(self, job_id: str) -> list[str]:
        return [data["state"] for data in self.named("state", job_id)]

    def wait_for(self, event: str, job_id: str | None = None, count: int = 1) -> list[dict[str, Any]]:
        with self._more:
            assert self._more.wait_for(lambda: len(self.named(event, job_id)) >= count, PATIENCE), f"no {event}"
        return self.named(event, job_id)


def gated(file: Path, steps: int) -> dict[str, Any]:
    """Settings of a work that keeps its last step until `let`."""
    return {"file": str(file), "steps": steps, "gate": str(file.with_suffix(".gate"))}


def let(file: Path) -> None:
    """The work on this file may end."""
    file.with_suffix(".gate").touch()


def until(condition: Callable[[], bool], what: str = "the condition") -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.005)


def until_state(store: JobStore, job_id: str, state: JobState) -> None:
    until(lambda: store.get(job_id).state == state, f"{state} (it is {store.get(job_id)})")
