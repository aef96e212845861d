from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engine.errors import Cancelled
from engine.models.device import CpuDevice
from engine.models.manager import ModelManager
from engine.workspace import Workspace
from tests.taggers.synthetic import write_wd

COLOURS = {"red": (250, 5, 5), "green": (5, 250, 5), "blue": (5, 5, 250)}


class Context:
    """A JobContext that keeps what it is told and can cancel after some checkpoints."""

    job_id = "test"
    cancelled = False

    def __init__(self, workspace: Workspace, cancel_after: int | None = None, quiet: bool = False) -> None:
        self.quiet = quiet
        self.workspace = workspace
        self.models = ModelManager(CpuDevice())
        self.told: list[tuple[int, int, str, str, dict[str, float]]] = []
        self.checkpoints = 0
        self.cancel_after = cancel_after
        self.between: Callable[[], None] = lambda: None

    def progress(self, step: int, total: int, text: str = "", *, phase: str = "", **metrics: float) -> None:
        if self.quiet:
            return
        self.told.append((step, total, text, phase, metrics))

    def checkpoint(self, save: Any = None) -> None:
        self.checkpoints += 1
        self.between()
        if self.cancel_after is not None and self.checkpoints >= self.cancel_after:
            raise Cancelled

    def preview(self, image: Any, **info: Any) -> None: ...

    def emit(self, event: str, **data: Any) -> None: ...

    def submit(self, spec: Any) -> str:
        return ""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    found = Workspace(tmp_path / "studio").create()
    write_wd(found.models / "taggers" / "wd-test")
    return found


@pytest.fixture
def ctx(workspace: Workspace) -> Context:
    return Context(workspace)


def paint(folder: Path, **names: str) -> None:
    """Pictures of one colour: name -> colour. Each differs in a corner pixel, so that no two have the same content."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, colour) in enumerate(names.items()):
        image = Image.new("RGB", (64, 64), COLOURS[colour])
        image.putpixel((0, 0), (number, number, number))
        image.save(folder / f"{name}.png")
