"""What a worker of these tests does at its start: as the studio's, on one thread, with a node that ends the process.

Trainings stay at a step, steerable as between any two, until their test makes a file: what it does in the middle of one
is in the middle of it on any machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch

from engine.graph.node import In, NodeContext, node
from engine.graph.registry import Registry
from engine.jobs.context import RunningJob
from engine.jobs.worker import WorkerHandle
from engine.workspace import Workspace
from studio.worker_setup import setup as studio_setup

HELD_AT = 12


def gate(workspace: Workspace) -> Path:
    return workspace.root / "go on"


@node("Abort", category="tests", output_node=True)
def abort(ctx: NodeContext, when: Annotated[str, In("STRING", default="")]) -> None:
    os.abort()


def _hold_trainings() -> None:
    progress, checkpoint, at = RunningJob.progress, RunningJob.checkpoint, {}

    def told(job: RunningJob, step: int, total: int, text: str = "", *, phase: str = "", **metrics: Any) -> None:
        at[job.job_id] = (phase, step)
        progress(job, step, total, text, phase=phase, **metrics)

    def held(job: RunningJob, save: Callable[[], None] | None = None) -> None:
        checkpoint(job, save)
        while at.get(job.job_id) == ("train", HELD_AT) and not gate(job.workspace).exists():
            time.sleep(0.02)
            checkpoint(job, save)

    RunningJob.progress, RunningJob.checkpoint = told, held  # type: ignore[method-assign]


def setup(worker: WorkerHandle) -> None:
    _hold_trainings()
    studio_setup(worker)
    torch.set_num_threads(1)
    worker.kept[Registry].add(abort)
    worker.handlers["pid"] = lambda _: os.getpid()
