"""Workers that are really killed: the queue goes on, and every job tells the truth."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from engine.jobs.supervisor import Supervisor
from engine.jobs.types import JobState
from tests.jobs.watching import PATIENCE, Heard, gated, let, until


def test_a_killed_worker_is_back_its_job_is_marked_and_the_next_one_runs(ready: Supervisor, heard: Heard) -> None:
    held = ready.submit("hold", {})
    after = ready.submit("add", {"a": 1, "b": 2})
    heard.wait_for("holding")
    first = ready.request("pid")

    os.kill(first, signal.SIGKILL)

    assert ready.wait(after.id, PATIENCE).result == {"sum": 3}
    marked = ready.store.get(held.id)
    assert marked.state == JobState.interrupted
    assert marked.error is not None and marked.error["code"] == "WorkerDied" and "SIGKILL" in marked.error["en"]
    assert ready.request("pid") != first
    heard.wait_for("state", held.id, 3)
    assert heard.states(held.id) == ["queued", "running", "interrupted"]


def test_a_resumable_job_goes_on_from_its_state_behind_the_others_of_its_priority(
    ready: Supervisor, heard: Heard, tmp_path: Path
) -> None:
    first = ready.submit("work", gated(tmp_path / "first", 60))
    second = ready.submit("work", {"file": str(tmp_path / "second"), "steps": 3})
    until(lambda: ready.store.get(first.id).progress.step > 10)
    ready.wait(ready.submit("add", {}).id, PATIENCE)  # was let in, so that the work was saved

    os.kill(ready.request("pid"), signal.SIGKILL)

    let(tmp_path / "first")
    assert ready.wait(first.id, PATIENCE).result == {"steps": 60}
    heard.wait_for("state", first.id, 6)
    assert heard.states(first.id) == ["queued", "running", "interrupted", "queued", "running", "done"]
    order = [(job, data["state"]) for job, event, data in heard.events if event == "state"]
    assert order.index((second.id, "done")) < len(order) - 1 - order[::-1].index((first.id, "running"))
    starts = [line for line in (tmp_path / "first.log").read_text().splitlines() if line.startswith("started")]
    assert starts[0] == "started at 0 attempt 1"
    assert int(starts[1].split()[2]) > 10 and starts[1].endswith("attempt 2")
