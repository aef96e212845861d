"""What a job is: its spec, its states, and what running work may use. No storage, no processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
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
        """Nothing more happens by itself: what can resume is queued again as it is interrupted, in one step."""
        return self in (JobState.done, JobState.failed, JobState.cancelled, JobState.interrupted)


class Priority(IntEnum):
    """Lower runs first."""

    interactive = 0  # a person waits
    batch = 1
    train = 2


class Paused(BaseException):
    """Unwinds a resumable job that was paused, or that a stopping studio puts back. Clean up, don't catch it."""


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
    resumable: bool = False  # its kind's; `submit` fills it in


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
    resumable: bool = False
    wish: str = ""  # what a person asked of a held job and the worker has not done yet: "cancel", "pause" or "resume"
    held: bool = False  # the worker has it: running, or paused inside its checkpoint()
    host: str = ""  # id of the job inside whose checkpoint() it runs

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class JobContext(Protocol):
    """What running work may use. One per running job, made by the worker.

    Work that fails raises; an exception with an attribute `result` (a dict) leaves that as the failed job's result
    (a graph leaves the outputs and messages that it had so far)."""

    job_id: str
    workspace: Workspace
    models: ModelManager
    progress: ProgressSink
    kept: dict[type, Any]  # one per worker: what jobs leave for later ones, by class (the graph's registry and caches)
    client_id: str
    attempt: int  # 1 at the first start; more after a crash
    secrets: dict[str, str]  # what the client sent for this job alone; it stands in no file

    @property
    def cancelled(self) -> bool:
        """True once the job should stop: a cheap flag for inner loops. `progress` and `checkpoint` raise it."""
        ...

    def checkpoint(self, save: Callable[[], None] | None = None) -> None:
        """Called between steps: cancels (raises errors.Cancelled), pauses, or runs waiting interactive jobs inside the
        call. `save` writes the work's state; it is called before a pause or before another job is let in when the last
        save is older than some minutes. A pause may also unwind the job (types.Paused) to make room for another: it is
        started again when resumed, and goes on from what `save` wrote."""
        ...

    def saved(self) -> None:
        """The work has just written its state by itself: `checkpoint` need not do so soon."""
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
