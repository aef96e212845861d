"""What a job is: its spec, its states, and what running work may use. No storage, no processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from engine.progress import Progress, ProgressSink

if TYPE_CHECKING:
    from PIL.Image import Image
    from pydantic import BaseModel

    from engine.models.manager import ModelManager
    from engine.workspace import Workspace


class JobState(StrEnum):
    queued = "queued"
    running = "running"
    paused = "paused"
    done = "done"
    failed = "failed"
    cancelled = "cancelled"
    interrupted = "interrupted"  # its worker or the server died; queued again where it can resume

    @property
    def ended(self) -> bool:
        return self in (JobState.done, JobState.failed, JobState.cancelled)


class Priority(IntEnum):
    """Lower runs first."""

    interactive = 0  # a person waits
    batch = 1
    train = 2


@dataclass(frozen=True)
class JobSpec:
    """What to run. `settings` is JSON already validated by the kind's settings model."""

    kind: str
    settings: dict[str, Any]
    priority: Priority = Priority.interactive
    title: str = ""
    user: str = ""
    client_id: str = ""  # the websocket client of ComfyUI's API that hears the events
    id: str = ""  # given by the store when empty


@dataclass(frozen=True)
class Job:
    """A row of the job store."""

    id: str
    kind: str
    settings: dict[str, Any]
    state: JobState
    priority: Priority
    position: float  # order among jobs of one priority
    title: str = ""
    user: str = ""
    client_id: str = ""
    attempts: int = 0
    created: float = 0.0  # unix seconds
    started: float | None = None
    finished: float | None = None
    progress: Progress = field(default_factory=Progress)
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None  # {"code", "en", "zh", "traceback"}


class JobContext(Protocol):
    """What running work may use. One per running job, made by the worker.

    Work that fails raises; an exception with an attribute `result` (a dict) leaves that as the failed job's result
    (a graph leaves the outputs and messages that it had so far)."""

    job_id: str
    workspace: Workspace
    models: ModelManager
    progress: ProgressSink
    kept: dict[type, Any]  # one per worker: what jobs leave for later ones, by class (the graph's registry and caches)

    def checkpoint(self, save: Callable[[], None] | None = None) -> None:
        """Called between steps: cancels (raises errors.Cancelled), pauses, or runs waiting interactive jobs inside the
        call. `save` writes the work's state; it is called before a pause or before another job is let in when the last
        save is older than some minutes."""
        ...

    def preview(self, image: Image, **info: Any) -> None:
        """A picture of the state of the work, shown live and kept only until the next."""
        ...

    def emit(self, event: str, **data: Any) -> None:
        """An event for whoever listens to this job (ComfyUI's websocket messages go this way). From any thread."""
        ...

    def submit(self, spec: JobSpec) -> str:
        """Queue another job; returns its id."""
        ...


@dataclass(frozen=True)
class JobKind:
    """One kind of job: how its settings are checked and what runs it in the worker."""

    name: str
    run: str  # "package.module:function", imported in the worker: function(ctx, settings_model) -> dict result
    settings: type[BaseModel]
    priority: Priority
    resumable: bool = False  # may be queued again after a crash and goes on from its saved state
