"""The "measure" job: looks through a dataset for near copies and blur, for filters and the health card to know them."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from engine.dataset.library import Library
from engine.dataset.measures import measure
from engine.dataset.pictures import scan
from engine.dataset.view import View
from engine.jobs.types import JobContext


class MeasureSettings(BaseModel):
    """Which dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str = Field(description="Name of the dataset.")
    threads: int = Field(4, ge=1, le=64, description="Threads that decode pictures.")


def run(ctx: JobContext, settings: MeasureSettings) -> dict[str, Any]:
    """Returns how many pictures were measured now, how many have near copies, and how many groups those are."""

    def progress(step: int, total: int, text: str = "", *, phase: str = "", **metrics: float) -> None:
        ctx.progress(step, total, text, phase=phase, **metrics)
        ctx.checkpoint()

    with Library(ctx.workspace).open(settings.dataset) as dataset:
        scan(dataset, progress)
        measured = measure(dataset, progress, threads=settings.threads)
        groups = View(dataset.store).near_copies()
        found = groups[groups >= 0]
        return {"measured": measured, "near_copies": len(found), "groups": len(np.unique(found))}
