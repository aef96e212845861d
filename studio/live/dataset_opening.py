"""The open datasets of a studio: a folder of a few new files is taken in at once, one of many by a job."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.dataset.intake import take_in
from engine.dataset.library import Dataset, Library
from engine.dataset.pictures import listing
from engine.dataset.view import View
from engine.jobs.types import JobState
from studio.app import App
from studio.demo.dataset import NAME as DEMO
from studio.demo.dataset import make_demo_dataset

AT_ONCE = 300  # new files that a request waits for; reading a hundred thousand takes minutes to hours


@dataclass
class OpenDatasets:
    """Datasets stay open with their views, so that a filter is answered from memory."""

    app: App
    _open: dict[str, tuple[Dataset, View]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def library(self) -> Library:
        return Library(self.app.workspace)

    def get(self, name: str) -> tuple[Dataset, View]:
        with self._lock:
            if name not in self._open:
                self._take(self.library.open(name))
            return self._open[name]

    def create(self, name: str, folder: str) -> str:
        dataset = self.library.create(name, Path(folder).expanduser() if folder.strip() else None)
        with self._lock:
            self._take(dataset)
        return dataset.name

    def demo(self) -> str:
        if DEMO not in self.library.names():
            make_demo_dataset(self.library).close()
        return DEMO

    def look(self, name: str) -> dict[str, Any]:
        """What is new in the folder of a dataset: counts, or the job that is finding out."""
        dataset, _ = self.get(name)
        return self._look(dataset)

    def _take(self, dataset: Dataset) -> None:
        self._look(dataset)
        self._open[dataset.name] = dataset, View(dataset.store)

    def _look(self, dataset: Dataset) -> dict[str, Any]:
        listed = listing(dataset)
        if len(listed.new) > AT_ONCE:
            return {"job": self._job(dataset.name)}
        report = take_in(dataset, listed=listed)
        counts = {"added": report.added, "gone": report.gone, "masks": report.masks}
        return {**counts, "problems": len(report.problems)}

    def _job(self, name: str) -> str:
        """The id of the job that takes this dataset in: one that waits or runs already, or a new one."""
        open_states = (JobState.queued, JobState.running, JobState.paused)
        there = self.app.jobs.list(open_states, ["scan"], settings={"$.dataset": name})
        return there[0].id if there else self.app.submit("scan", {"dataset": name}, title=name).id
