from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from engine.dataset.job import MeasureSettings, run
from engine.dataset.library import Library
from engine.dataset.query import matching
from engine.dataset.view import View
from engine.errors import Cancelled
from engine.workspace import Workspace
from tests.taggers.conftest import Context


def draw(workspace: Workspace) -> None:
    """Five pictures and a smaller copy of the first."""
    folder = workspace.datasets / "set"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for i in range(5):
        image = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize(
            (320, 240), Image.Resampling.BICUBIC
        )
        image.save(folder / f"p{i}.png")
        if i == 0:
            image.resize((160, 120)).save(folder / "copy.jpg")


def test_the_job_measures_once_and_counts_near_copies(workspace: Workspace) -> None:
    draw(workspace)
    ctx = Context(workspace)
    assert run(ctx, MeasureSettings(dataset="set")) == {"measured": 6, "near_copies": 2, "groups": 1}
    assert {row[3] for row in ctx.told} == {"scan", "measure"}
    assert run(ctx, MeasureSettings(dataset="set"))["measured"] == 0
    with Library(workspace).open("set") as dataset:
        view = View(dataset.store)
        assert [p.name for p, hit in zip(view.pictures(), matching(view, "dup:yes"), strict=True) if hit] == [
            "copy.jpg",
            "p0.png",
        ]


def test_a_cancelled_measuring_goes_on_later(workspace: Workspace) -> None:
    draw(workspace)
    with pytest.raises(Cancelled):
        run(Context(workspace, cancel_after=3), MeasureSettings(dataset="set"))
    assert run(Context(workspace), MeasureSettings(dataset="set"))["near_copies"] == 2
