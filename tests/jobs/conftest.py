"""Fixtures: a store, and a supervisor with a real worker process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.jobs.store import JobStore
from engine.jobs.supervisor import Supervisor
from engine.workspace import Workspace
from tests.jobs.kinds import kinds
from tests.jobs.watching import PATIENCE, Heard


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "space").create()


@pytest.fixture
def store(workspace: Workspace) -> Iterator[JobStore]:
    store = JobStore(workspace.database)
    yield store
    store.close()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def supervisor(store: JobStore, workspace: Workspace, heard: Heard) -> Iterator[Supervisor]:
    supervisor = Supervisor(store, kinds(), workspace, "cpu", "tests.jobs.kinds:setup", save_every=0.0, grace=3.0)
    supervisor.subscribe(heard)
    supervisor.start()
    yield supervisor
    supervisor.stop()


@pytest.fixture
def ready(supervisor: Supervisor) -> Supervisor:
    assert supervisor.wait_ready(PATIENCE)
    return supervisor
