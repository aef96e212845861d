"""Jobs of a dataset: "scan" takes a folder in, "measure" looks for near copies and blur (for filters and the health
card), "unpack" takes a zip file in that was uploaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from engine.dataset.archives import unpack as unpack_archive
from engine.dataset.export import SIDECAR_SUFFIXES, import_sidecars
from engine.dataset.intake import take_in
from engine.dataset.library import Library
from engine.dataset.mask_files import import_masks
from engine.dataset.mask_names import masks_among
from engine.dataset.measures import measure
from engine.dataset.pictures import scan
from engine.dataset.view import View
from engine.errors import GONE, InputError, NotFound
from engine.jobs.types import JobContext
from engine.progress import ProgressSink
from engine.workspace import Workspace, inside


class MeasureSettings(BaseModel):
    """Which dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str = Field(description="Name of the dataset.")
    threads: int = Field(4, ge=1, le=64, description="Threads that decode pictures.")


class ScanSettings(BaseModel):
    """Which dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str = Field(description="Name of the dataset.")


class UnpackSettings(BaseModel):
    """A zip file among the uploads, and the dataset it goes into."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str = Field(description="Name of the dataset.")
    archive: str = Field(pattern=r"^[\w.-]+$", description="Name of the file in the folder of uploads.")
    name: str = Field("upload.zip", max_length=200, description="What the file was called where it came from.")
    read_as: Literal["tags", "caption"] = Field("tags", description="What its caption files are taken for.")
    max_gb: int = Field(64, ge=1, le=100_000, description="Most that may come out of it.")


def look_through(ctx: JobContext, settings: ScanSettings) -> dict[str, Any]:
    """Takes in what is new in the folder. Returns counts, and problems by file. What was read is not read again."""
    with Library(ctx.workspace).open(settings.dataset) as dataset:
        report = take_in(dataset, _stopping(ctx))
    counts = {"added": report.added, "changed": report.changed, "gone": report.gone, "masks": report.masks}
    return {"dataset": settings.dataset, **counts, "problems": report.problems}


def run(ctx: JobContext, settings: MeasureSettings) -> dict[str, Any]:
    """Returns how many pictures were measured now, how many have near copies, and how many groups those are."""
    progress = _stopping(ctx)
    with Library(ctx.workspace).open(settings.dataset) as dataset:
        scan(dataset, progress)
        measured = measure(dataset, progress, threads=settings.threads)
        groups = View(dataset.store).near_copies()
        found = groups[groups >= 0]
        return {"measured": measured, "near_copies": len(found), "groups": len(np.unique(found))}


def unpack(ctx: JobContext, settings: UnpackSettings) -> dict[str, Any]:
    """Returns how many files came in, and problems by entry. The zip is deleted once it has been read or refused."""
    archive = inside(uploads(ctx.workspace), settings.archive)
    if not archive.is_file():
        raise NotFound(what="upload", what_zh="上传的文件", name=settings.name, **GONE)
    progress = _stopping(ctx)
    with Library(ctx.workspace).open(settings.dataset) as dataset:
        try:
            report = unpack_archive(dataset, archive, settings.name, progress, max_total=settings.max_gb << 30)
        except InputError:
            archive.unlink(missing_ok=True)
            raise
        problems = dict(report.left_out)
        if captions := {name for name in report.files if name.lower().endswith(SIDECAR_SUFFIXES)}:
            view = View(dataset.store)
            problems |= import_sidecars(dataset, view, read_as=settings.read_as, only=captions).problems
        if masks_among(report.files):
            problems |= import_masks(dataset).problems
    archive.unlink(missing_ok=True)
    return {"files": len(report.files), "problems": problems}


def uploads(workspace: Workspace) -> Path:
    """Where files lie that were sent and wait for their job."""
    return workspace.cache / "uploads"


def _stopping(ctx: JobContext) -> ProgressSink:
    """Progress that is told, with a chance to stop or to let somebody who waits go first."""

    def progress(step: int, total: int, text: str = "", *, phase: str = "", **metrics: float) -> None:
        ctx.progress(step, total, text, phase=phase, **metrics)
        ctx.checkpoint()

    return progress
