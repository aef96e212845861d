"""A training in a real worker process that is killed, crashed by somebody's picture, and interrupted by others."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from engine.graph.registry import Registry
from engine.jobs.store import JobStore
from engine.jobs.supervisor import Supervisor
from engine.jobs.types import JobState
from engine.workflows import LoraChoice, PictureSettings, text_to_image
from engine.workspace import Workspace
from studio.kinds import job_kinds
from tests.trainers.conftest import Context, tiny_settings
from tests.trainers.worker_setup import gate
from trainers import job

pytestmark = pytest.mark.slow
PATIENCE = 240.0


@pytest.fixture
def supervisor(workspace: Workspace) -> Iterator[Supervisor]:
    with_worker = Supervisor(
        JobStore(workspace.database), job_kinds(), workspace, "cpu", "tests.trainers.worker_setup:setup", save_every=0.0
    )
    with_worker.start()
    assert with_worker.wait_ready(PATIENCE)
    yield with_worker
    with_worker.stop()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def steps_done(supervisor: Supervisor, job_id: str) -> int:
    progress = supervisor.store.get(job_id).progress
    return progress.step if progress.phase == "train" else 0


def weights(workspace: Workspace, name: str) -> dict[str, torch.Tensor]:
    return load_file(workspace.models / "loras" / f"{name}.safetensors")


def draw(supervisor: Supervisor, seed: int, **node: Any) -> Any:
    settings = PictureSettings(
        ckpt_name="tiny.safetensors", positive="a cat", width=64, height=64, seed=seed, steps=2, cfg=3.0 + seed,
        sampler_name="dpmpp_2m_sde", loras=(LoraChoice("other.safetensors"),),
    )  # fmt: skip
    return supervisor.submit("generate", {"prompt": node or text_to_image(settings)})


def test_kills_crashes_pauses_and_pictures_leave_a_training_as_it_would_have_been(
    supervisor: Supervisor, workspace: Workspace, registry: Registry
) -> None:
    job.run(Context(workspace, registry, "other"), tiny_settings(workspace, name="other", steps=1, seed=9))
    settings = tiny_settings(
        workspace, steps=30, train_text_encoder=True, shuffle_caption=True, state_every=4, sample_every=15,
        sample_prompts=("zz",), sample_steps=2,
    )  # fmt: skip
    training = supervisor.submit("train", settings.model_dump(mode="json", exclude_unset=True)).id
    until(lambda: steps_done(supervisor, training) >= 2)

    for seed in (1, 2, 3):
        done = supervisor.wait(draw(supervisor, seed).id, PATIENCE)
        assert done.state == JobState.done, done.error
        assert supervisor.store.get(training).state == JobState.running, "pictures are made between two steps"

    supervisor.store.pause(training)
    until(lambda: supervisor.store.get(training).state == JobState.paused)
    assert supervisor.wait(draw(supervisor, 4).id, PATIENCE).state == JobState.done
    supervisor.store.resume(training)
    until(lambda: steps_done(supervisor, training) >= 9)
    os.kill(supervisor.request("pid"), signal.SIGKILL)
    until(lambda: supervisor.store.get(training).attempts == 2 and steps_done(supervisor, training) >= 10)

    crash = draw(supervisor, 0, **{"1": {"class_type": "Abort", "inputs": {"when": "now"}}})
    ended = supervisor.wait(crash.id, PATIENCE)
    assert ended.state in (JobState.failed, JobState.interrupted)
    gate(workspace).touch()

    found = supervisor.wait(training, PATIENCE)
    assert found.state == JobState.done, found.error
    assert found.result is not None and found.result["steps"] == 30

    job.run(Context(workspace, registry, "alone"), settings.model_copy(update={"name": "alone", "sample_every": 0}))
    one, other = weights(workspace, "zz"), weights(workspace, "alone")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
