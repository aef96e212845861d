"""The kinds of job there are: how their settings are checked, and what runs them in the worker."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from engine.dataset.job import MeasureSettings, ScanSettings, UnpackSettings
from engine.graph.job import GenerateSettings
from engine.jobs.types import JobKind, Priority
from taggers.settings import TagSettings
from trainers.settings import LookSettings, TrainSettings


def job_kinds() -> Mapping[str, JobKind]:
    kinds = (
        JobKind("generate", "engine.graph.job:run", GenerateSettings, Priority.interactive),
        JobKind("tag", "taggers.job:run", TagSettings, Priority.batch, resumable=True),
        JobKind("scan", "engine.dataset.job:look_through", ScanSettings, Priority.batch, resumable=True),
        JobKind("measure", "engine.dataset.job:run", MeasureSettings, Priority.batch, resumable=True),
        JobKind("unpack", "engine.dataset.job:unpack", UnpackSettings, Priority.interactive, resumable=True),
        JobKind("look", "trainers.look:run", LookSettings, Priority.interactive),
        JobKind("train", "trainers.job:run", TrainSettings, Priority.train, resumable=True),
    )
    return MappingProxyType({kind.name: kind for kind in kinds})
