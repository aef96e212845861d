"""What a worker of these tests does at its start: as the studio's, on one thread, with a node that ends the process."""

from __future__ import annotations

import os
from typing import Annotated

import torch

from engine.graph.node import In, NodeContext, node
from engine.graph.registry import Registry
from engine.jobs.worker import WorkerHandle
from studio.worker_setup import setup as studio_setup


@node("Abort", category="tests", output_node=True)
def abort(ctx: NodeContext, when: Annotated[str, In("STRING", default="")]) -> None:
    os.abort()


def setup(worker: WorkerHandle) -> None:
    studio_setup(worker)
    torch.set_num_threads(1)
    worker.kept[Registry].add(abort)
    worker.handlers["pid"] = lambda _: os.getpid()
