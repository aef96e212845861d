"""The JobContext of one running job: progress, previews, and what happens between two of its steps."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from engine.errors import Cancelled
from engine.jobs.types import JobSpec, Paused
from engine.progress import EtaClock, Progress

if TYPE_CHECKING:
    from PIL.Image import Image

    from engine.jobs.worker import Worker

PROGRESS_EVERY = 0.1  # seconds between two progress messages of a job
NOTHING_WAITS = 1 << 30  # less urgent than any priority


class RunningJob:
    """The JobContext of one running job."""

    def __init__(self, worker: Worker, job: dict[str, Any], host: RunningJob | None) -> None:
        self.job_id: str = job["id"]
        self.client_id: str = job["client_id"]
        self.attempt: int = job["attempts"]
        self.secrets: dict[str, str] = job["secrets"]
        self.workspace = worker.handle.workspace
        self.models = worker.handle.models
        self.kept = worker.handle.kept
        self.priority: int = job["priority"]
        self.wish = ""
        self.flush_queued = False
        self._worker = worker
        self._host = host
        self._clock = EtaClock()
        self._phase: str | None = None
        self._sent = 0.0
        self._pending: Progress | None = None
        self._lock = threading.Lock()
        self._saved_at = time.monotonic()

    @property
    def cancelled(self) -> bool:
        return self.wish == "cancel"

    def progress(self, step: int, total: int, text: str = "", *, phase: str = "", **metrics: float) -> None:
        if self.wish == "cancel":
            raise Cancelled
        now = time.monotonic()
        with self._lock:
            eta = self._clock.update(step, total, phase, now)
            self._pending = Progress(step, total, phase, text, eta, dict(metrics))
            due = now >= self.may_send_at() or phase != self._phase or step >= total > 0
            self._phase = phase
        if due:
            self.flush()
        else:
            self._worker.flush_later(self)

    def may_send_at(self) -> float:
        return self._sent + PROGRESS_EVERY

    def flush(self) -> None:
        with self._lock:
            pending, self._pending = self._pending, None
            if pending is not None:
                self._sent = time.monotonic()
                self._worker.pipe.send({"t": "progress", "job": self.job_id, "progress": asdict(pending)})

    def checkpoint(self, save: Callable[[], None] | None = None) -> None:
        if not self.wish and not self._worker.stopping and self._worker.waiting >= self.priority:
            return
        self._steer(save)
        while self._worker.waiting < self.priority:
            self._let_in(save, above=self.priority)
            self._steer(save)

    def saved(self) -> None:
        self._saved_at = time.monotonic()

    def preview(self, image: Image, **info: Any) -> None:
        data = io.BytesIO()
        image.convert("RGB").save(data, "JPEG", quality=85)
        message = {"t": "preview", "job": self.job_id, "data": {"mime": "image/jpeg", **info}}
        self._worker.pipe.send(message, data.getvalue())

    def emit(self, event: str, **data: Any) -> None:
        self._worker.pipe.send_soon({"t": "event", "job": self.job_id, "event": event, "data": data})

    def submit(self, spec: JobSpec) -> str:
        return self._worker.ask({"t": "submit", "spec": asdict(spec)})["id"]

    def _steer(self, save: Callable[[], None] | None) -> None:
        """Do what is wished: cancel, pause, stop. Returns when the job is to go on."""
        if self.wish == "cancel":
            raise Cancelled
        if self._worker.stopping or (self.wish == "pause" and self._host):
            self._save(save)
            raise Paused
        if self.wish == "pause":
            self._save(save)
            self._worker.pipe.send({"t": "paused", "job": self.job_id})
            self._stay_paused()
        self._worker.forget_resume(self)

    def _stay_paused(self) -> None:
        """Only the outermost job stays in here; it makes room when a job that is no more urgent than it is in line."""
        while self.wish != "resume":
            if self.wish == "cancel":
                raise Cancelled
            if self._worker.stopping or self.priority <= self._worker.waiting < NOTHING_WAITS:
                raise Paused
            if self._worker.waiting < self.priority:
                self._let_in(None, above=self.priority)
            else:
                self._worker.wait_for_news(
                    lambda: (
                        self.wish in ("resume", "cancel")
                        or self._worker.stopping
                        or self._worker.waiting != NOTHING_WAITS
                    )
                )

    def _let_in(self, save: Callable[[], None] | None, above: int) -> None:
        if save and time.monotonic() - self._saved_at >= self._worker.save_every:
            self._save(save)
        job = self._worker.take(above=above, host=self.job_id)
        if job is not None:
            with self._worker.handle.around_nested():
                self._worker.run(job, host=self)

    def _save(self, save: Callable[[], None] | None) -> None:
        if save:
            save()
            self._saved_at = time.monotonic()
