"""Servers that are really killed or stopped: at the next start every job is there, in a truthful state."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from engine.jobs.errors import StudioRunning
from engine.jobs.store import JobStore
from engine.jobs.submit import submit
from engine.jobs.supervisor import Supervisor
from engine.jobs.types import JobState
from engine.workspace import Workspace
from tests.jobs.kinds import kinds
from tests.jobs.watching import PATIENCE, gated, let, until, until_state

ROOT = Path(__file__).resolve().parents[2]


class Server:
    def __init__(self, workspace: Workspace) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.jobs.server", str(workspace.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self.process.stdout
        self.hello = json.loads(self.process.stdout.readline())
        self.worker = psutil.Process(self.hello["worker"])

    def stop(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("stop\n")
        self.process.stdin.flush()
        assert self.process.wait(PATIENCE) == 0


@contextmanager
def server(workspace: Workspace) -> Iterator[Server]:
    running = Server(workspace)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()
        for stream in (running.process.stdin, running.process.stdout):
            assert stream
            stream.close()


@contextmanager
def next_start(store: JobStore, workspace: Workspace) -> Iterator[Supervisor]:
    supervisor = Supervisor(store, kinds(), workspace, "cpu", "tests.jobs.kinds:setup", save_every=0.0, grace=3.0)
    supervisor.start()
    yield supervisor
    supervisor.stop()


def test_after_a_killed_server_every_job_tells_the_truth_and_the_queue_goes_on(
    store: JobStore, workspace: Workspace, tmp_path: Path
) -> None:
    with server(workspace) as first:
        train = submit(store, kinds(), "work", gated(tmp_path / "w", 60))  # seen by the other process
        until(lambda: store.get(train.id).progress.step > 5)
        hold = submit(store, kinds(), "hold", {})
        until_state(store, hold.id, JobState.running)
        waiting = submit(store, kinds(), "add", {"a": 1, "b": 1})
        paused = submit(store, kinds(), "add", {})
        store.pause(paused.id)
        os.kill(first.process.pid, signal.SIGKILL)
        until(lambda: not first.worker.is_running() or first.worker.status() == "zombie", "the end of the worker")

    with next_start(store, workspace) as second:
        marked = store.get(hold.id)
        let(tmp_path / "w")
        assert marked.state == JobState.interrupted
        assert marked.error is not None and marked.error["code"] == "StudioStopped"
        assert second.wait(waiting.id, PATIENCE).result == {"sum": 2}
        assert second.wait(train.id, PATIENCE).result == {"steps": 60}
        assert store.get(paused.id).state == JobState.paused
    steps = [line for line in (tmp_path / "w.log").read_text().splitlines() if line.startswith("step")]
    assert steps == [f"step {n}" for n in range(1, 61)]  # saved when the other job was let in: nothing lost, none twice


def test_a_paused_training_is_still_paused_after_a_killed_server(
    store: JobStore, workspace: Workspace, tmp_path: Path
) -> None:
    with server(workspace):
        train = submit(store, kinds(), "work", gated(tmp_path / "w", 30))
        until(lambda: store.get(train.id).progress.step > 5)
        store.pause(train.id)  # by another process than the server
        until_state(store, train.id, JobState.paused)
    with next_start(store, workspace) as second:
        other = second.submit("work", {"file": str(tmp_path / "v"), "steps": 1})
        second.wait(other.id, PATIENCE)
        assert store.get(train.id).state == JobState.paused
        let(tmp_path / "w")
        store.resume(train.id)
        assert second.wait(train.id, PATIENCE).result == {"steps": 30}
        assert store.get(train.id).attempts == 1


def test_a_stopped_server_saves_its_training_and_costs_it_no_attempt(
    store: JobStore, workspace: Workspace, tmp_path: Path
) -> None:
    with server(workspace) as first:
        train = submit(store, kinds(), "work", gated(tmp_path / "w", 40))
        until(lambda: store.get(train.id).progress.step > 5)
        first.stop()
        stopped = store.get(train.id)
        assert (stopped.state, stopped.attempts) == (JobState.queued, 0)
        assert not first.worker.is_running()
    let(tmp_path / "w")
    with next_start(store, workspace) as second:
        assert second.wait(train.id, PATIENCE).result == {"steps": 40}
    steps = [line for line in (tmp_path / "w.log").read_text().splitlines() if line.startswith("step")]
    assert steps == [f"step {n}" for n in range(1, 41)]


def test_two_servers_do_not_share_a_workspace(store: JobStore, workspace: Workspace) -> None:
    with server(workspace) as first:
        job = submit(store, kinds(), "hold", {})
        until_state(store, job.id, JobState.running)
        second = Supervisor(store, kinds(), workspace)
        with pytest.raises(StudioRunning) as error:
            second.start()
        assert str(first.process.pid) in str(error.value)
        assert store.get(job.id).state == JobState.running
        second.stop()


def test_the_server_imports_no_torch(workspace: Workspace) -> None:
    with server(workspace) as running:
        assert running.hello["torch"] is False


def test_a_set_up_that_fails_is_said_and_tried_again_on_demand(
    store: JobStore, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.jobs.supervisor._FEW_FAILURES", 2)
    supervisor = Supervisor(store, kinds(), workspace, "cpu", "tests.jobs.kinds:broken_setup")
    supervisor.start()
    job = supervisor.submit("add", {})
    assert not supervisor.wait_ready(PATIENCE)
    assert supervisor.state == "failed"
    assert supervisor.error is not None and "no driver" in supervisor.error["en"]
    assert store.get(job.id).state == JobState.queued
    supervisor._setup = "tests.jobs.kinds:setup"
    supervisor.restart()
    until(lambda: supervisor.state == "ready")
    assert supervisor.wait(job.id, PATIENCE).state == JobState.done
    supervisor.stop()
