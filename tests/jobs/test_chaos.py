"""Many jobs, many hands and a worker that is killed again and again: nothing is lost, nothing is done twice."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from engine.errors import EaselError
from engine.jobs.supervisor import Supervisor
from engine.jobs.types import JobState, Priority
from tests.jobs.watching import Heard


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whatever_is_killed_every_job_ends_in_a_truthful_state(
    ready: Supervisor, heard: Heard, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    store = ready.store
    store._max_attempts = 1000  # the kills are ours
    works = {}
    for number in range(6):
        file = tmp_path / f"w{number}"
        priority = chance.choice([Priority.train, Priority.batch])
        works[ready.submit("work", {"file": str(file), "steps": 40, "pause": 0.005}, priority=priority).id] = file
    over = threading.Event()

    def meddle() -> None:
        mine = random.Random(seed + 100)
        while not over.wait(0.02):
            with suppress(EaselError):
                act = mine.choice([store.pause, store.resume, store.resume, store.move])
                act(mine.choice(list(works)))

    meddler = threading.Thread(target=meddle)
    meddler.start()
    pictures = []
    for _ in range(12):
        pictures += [ready.submit("add", {"a": n}).id for n in range(chance.randrange(4))]
        time.sleep(chance.uniform(0.02, 0.3))
        with suppress(EaselError):
            os.kill(ready.request("pid", timeout=5), signal.SIGKILL)
            ready._failures = 0  # no back-off
    over.set()
    meddler.join()
    for job_id in works:
        with suppress(EaselError):
            store.resume(job_id)

    for job_id, file in works.items():
        job = ready.wait(job_id, 60)
        assert (job.state, job.result) == (JobState.done, {"steps": 40})
        check_log(file.with_suffix(".log").read_text().splitlines())
    states = [ready.wait(job_id, 60).state for job_id in pictures]
    assert set(states) <= {JobState.done, JobState.interrupted}
    assert states.count(JobState.interrupted) <= 12
    assert store.held() == []


def check_log(lines: list[str]) -> None:
    """Every start goes on at what was saved last, and every step follows the one before."""
    at = saved = 0
    for line in lines:
        word, *rest = line.split()
        if word == "started":
            assert int(rest[1]) in (saved, at)  # the latter when it was killed between the save and its line
            at = saved = int(rest[1])
        elif word == "step":
            assert int(rest[0]) == at + 1
            at += 1
        else:
            saved = int(rest[0])
            assert saved == at
    assert saved == 40
