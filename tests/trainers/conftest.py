"""A workspace with a tiny checkpoint and a dataset, and the job's context without a worker around it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from engine.errors import Cancelled
from engine.graph.registry import Registry
from engine.models.device import CpuDevice
from engine.models.manager import ModelManager
from engine.nodes import load_all
from engine.workspace import Workspace
from tests.families.tiny import make_tiny_sd1
from trainers.settings import TrainSettings


class Context:
    """A JobContext in this process. `between` runs inside checkpoints, as an interactive job would."""

    def __init__(self, workspace: Workspace, registry: Registry, job_id: str = "job-1") -> None:
        self.job_id = job_id
        self.workspace = workspace
        self.models = ModelManager(CpuDevice())
        self.kept: dict[type, Any] = {Registry: registry}
        self.client_id = ""
        self.attempt = 1
        self.secrets: dict[str, str] = {}
        self.cancelled = False
        self.between: Callable[[Context], None] | None = None
        self.told: list[tuple[int, int, str, str, dict[str, float]]] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.previews = 0

    def progress(self, step: int, total: int, text: str = "", *, phase: str = "", **metrics: float) -> None:
        if self.cancelled:
            raise Cancelled
        self.told.append((step, total, text, phase, metrics))

    def checkpoint(self, save: Callable[[], None] | None = None) -> None:
        if self.cancelled:
            raise Cancelled
        between, self.between = self.between, None  # what runs in there has its own checkpoints
        try:
            if between:
                between(self)
        finally:
            self.between = between

    def saved(self) -> None:
        pass

    def preview(self, image: Any, **info: Any) -> None:
        self.previews += 1

    def emit(self, event: str, **data: Any) -> None:
        self.events.append((event, data))

    def submit(self, spec: Any) -> str:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def registry() -> Registry:
    registry = Registry()
    load_all(registry)
    return registry


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_sd1(tmp_path_factory.mktemp("tiny") / "tiny.safetensors")


@pytest.fixture
def workspace(tmp_path: Path, tiny: Path) -> Workspace:
    made = Workspace(tmp_path / "workspace").create()
    shutil.copy(tiny, made.models / "checkpoints")
    make_dataset(made.datasets / "mine")
    return made


@pytest.fixture
def ctx(workspace: Workspace, registry: Registry) -> Context:
    return Context(workspace, registry)


def make_dataset(folder: Path, count: int = 5) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        size = (48 + 16 * (i % 2), 48)
        Image.new("RGB", size, (50 * i, 250 - 50 * i, 90)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"cat {i}, red, a photo, blue")


def tiny_settings(workspace: Workspace, **changes: Any) -> TrainSettings:
    base: dict[str, Any] = {
        "model": "tiny.safetensors",
        "dataset": str(workspace.datasets / "mine"),
        "trigger_word": "zz",
        "resolution": 32,
        "bucket_step": 16,
        "steps": 6,
        "batch_size": 2,
        "learning_rate": 1e-2,
        "rank": 4,
        "tensorboard": False,
    }
    return TrainSettings(**(base | changes))
