"""The server's side of the worker process: starts it, feeds it jobs, marks them, starts it again when it dies.

One thread (the *loop*) owns all of its state; others post actions to it. It imports no torch and no job code.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from typing import Any, Literal

from engine.errors import EaselError, StorageError, describe
from engine.jobs.errors import StudioStopped, WorkerDied, WorkerNotReady
from engine.jobs.lock import StudioLock
from engine.jobs.logfile import RotatingLog
from engine.jobs.process import WorkerProcess, reason_of
from engine.jobs.store import JobStore
from engine.jobs.submit import Kinds, submit, submit_spec
from engine.jobs.types import Job, JobKind, JobSpec, JobState
from engine.progress import Progress
from engine.workspace import Workspace

State = Literal["starting", "ready", "restarting", "failed", "stopped"]
Subscriber = Callable[[str, str, dict[str, Any]], None]

_POLL = 0.5  # seconds until a change that another process made in the store is seen
_FEW_FAILURES = 4  # set-ups in a row that may fail before it is given up
_LIVED_LONG = 60.0
_log = logging.getLogger(__name__)


class Supervisor:
    """One worker for one device.

    `setup` ("module:function", called with a WorkerHandle) prepares the worker. `save_every`: seconds after which a
    job's state is old enough to be saved before a more urgent job is let in. `grace`: seconds that a stopping studio
    gives a job to reach its next checkpoint.

    Subscribers hear `(job_id, event, data)`, in order, in the loop's thread, and must return at once:
    - "state" {"state", "seq", "time", ...}, also "job_wish", "job_moved", "job_deleted": the store's log
    - "job_progress" {"step", "total", "phase", "text", "eta", "metrics"}
    - "preview" {"image": JPEG bytes, "mime", ...}
    - what jobs emit, by its own name
    - with job_id "": "worker" {"state", "phase", "seconds", "error"}, every 2 s until it is ready, and what the worker
      itself emits
    """

    def __init__(
        self,
        store: JobStore,
        kinds: Kinds,
        workspace: Workspace,
        device: str = "auto",
        setup: str = "",
        *,
        save_every: float = 300.0,
        grace: float = 10.0,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.store = store
        self.kinds = kinds
        self.state: State = "starting"
        self.phase = "starting the worker process"
        self.error: dict[str, Any] | None = None  # why the set-up failed
        self.log = RotatingLog(workspace.cache / "logs" / "worker.log")
        self.last_beat = self.phase_since = time.monotonic()
        self._workspace = workspace
        self._device = device
        self._setup = setup
        self._save_every = save_every
        self._grace = grace
        self._environment = environment or {}
        self._lock_file = StudioLock(store.path.with_name(store.path.name + ".lock"))
        self._actions: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._subscribers: list[Subscriber] = []
        self._thread: threading.Thread | None = None
        # What follows belongs to the loop.
        self._process: WorkerProcess | None = None
        self._started_at = 0.0
        self._stack: list[Job] = []  # what the worker holds, outermost first
        self._take: dict[str, Any] | None = None  # the worker's unanswered wish for a job
        self._told: int | None = None  # the priority that the worker knows to be waiting
        self._writes: deque[Callable[[], Any]] = deque()  # reports that the store has not taken yet (disk full)
        self._failures = 0  # deaths in a row without a finished job
        self._restart_at: float | None = None
        self._kill_at: float | None = None
        self._stopping = False
        self._seq = 0
        self._nudged = False
        self._secrets: dict[str, dict[str, str]] = {}  # by job: never in the store

    # ---- for the server ----

    def start(self) -> None:
        """Takes the workspace (raises StudioRunning), recovers the store and starts the worker. Returns at once."""
        self._lock_file.take()
        try:
            self.store.recover()
        except BaseException:
            self._lock_file.release()
            raise
        self._seq = self.store.last_seq()
        self._forget = self.store.on_change(self._nudge)
        self._thread = threading.Thread(target=self._loop, name="supervisor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Lets running jobs save and puts them back in line, then ends the worker. Takes `grace` seconds at most."""
        if self._thread is None:
            return
        self._post(self._begin_stop)
        self._thread.join(self._grace + 10)
        self._thread = None
        self._forget()
        self._lock_file.release()

    @property
    def silent_for(self) -> float:
        """Seconds since the last sign of life of a worker that is up; it gives one every 2 s unless something native
        holds it completely."""
        return time.monotonic() - self.last_beat if self._process is not None else 0.0

    def wait_ready(self, timeout: float = 120.0) -> bool:
        """True when the worker is ready; False when it failed, or after the timeout."""
        with self._changed:
            self._changed.wait_for(lambda: self.state in ("ready", "failed", "stopped"), timeout)
        return self.state == "ready"

    def submit(self, kind: str, settings: dict[str, Any], **more: Any) -> Job:
        """engine.jobs.submit.submit with this store and these kinds."""
        return submit(self.store, self.kinds, kind, settings, **more)

    @contextmanager
    def entrusting(self, job_id: str, secrets: Mapping[str, str]) -> Iterator[None]:
        """Around queueing a job: what it needs and nobody may read later. It is kept in this process's memory until the
        job ends, and given to the worker with the job. A studio that starts anew has it no more."""
        mine = dict(secrets)
        added = bool(mine) and self._secrets.setdefault(job_id, mine) is mine
        try:
            yield
        except BaseException:
            if added:
                del self._secrets[job_id]
            raise

    def wait(self, job_id: str, timeout: float | None = None) -> Job:
        """Until the job has ended. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.store.get(job_id).state.ended, timeout):
                raise TimeoutError(f"job {job_id} has not ended within {timeout} s")
        return self.store.get(job_id)

    def running(self) -> list[Job]:
        """What the worker has now, the innermost last."""
        return self.store.held()

    def request(self, name: str, payload: Any = None, timeout: float = 5.0) -> Any:
        """What the worker's handler of that name answers. Its main thread may be busy meanwhile.

        Raises WorkerNotReady (also when it takes too long), WorkerGone, and what the handler raised as RemoteError.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            self._changed.wait_for(lambda: self.state in ("ready", "failed", "stopped"), timeout)
        process = self._process
        not_ready = partial(WorkerNotReady, state=self.state, phase=self.phase, name=name, timeout=timeout)
        if self.state != "ready" or process is None:
            raise not_ready()
        try:
            return process.request(name, payload, deadline - time.monotonic())
        except TimeoutError:
            raise not_ready() from None

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Returns what ends the subscription."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def kill_worker(self) -> None:
        """For a job that does not react: ends the worker at once. Cancel the job first if it shall not come back."""
        self._post(self._kill)

    def restart(self) -> None:
        """Try again after state "failed"."""
        self._post(self._try_again)

    # ---- the loop ----

    def _post(self, action: Callable[[], None]) -> None:
        self._actions.put(action)

    def _nudge(self) -> None:
        """The store changed."""
        if not self._nudged:
            self._nudged = True
            self._post(self._see_change)

    def _see_change(self) -> None:
        self._nudged = False

    def _loop(self) -> None:
        self._start_worker()
        while self.state != "stopped":
            try:
                self._wait_and_act()
                self._write_reports()
                self._publish_log()
                self._keep_time()
                self._feed()
            except Exception:  # the queue must go on whatever happens
                _log.exception("in the supervisor's loop")
                time.sleep(1)
        self._publish_log()

    def _wait_and_act(self) -> None:
        with suppress(queue.Empty):
            self._actions.get(timeout=self._patience())()
            while True:
                self._actions.get_nowait()()

    def _patience(self) -> float:
        moments = [moment for moment in (self._restart_at, self._kill_at) if moment is not None]
        return max(0.0, min([_POLL, *(moment - time.monotonic() for moment in moments)]))

    def _keep_time(self) -> None:
        now = time.monotonic()
        if self._restart_at is not None and now >= self._restart_at:
            self._restart_at = None
            self._start_worker()
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            self._kill()

    def _publish_log(self) -> None:
        """Tell subscribers what changed, whoever changed it, and the worker what is wished of its jobs."""
        events = self.store.events_since(self._seq)
        for event in events:
            self._seq = event.seq
            if event.event == "wish":
                self._pass_on_wish(event.job_id)
            known = event.event in JobState.__members__
            name = "state" if known else f"job_{event.event}"
            state = {"state": event.event} if known else {}
            if (known and JobState(event.event).ended) or event.event == "deleted":
                self._secrets.pop(event.job_id, None)
            self._publish(event.job_id, name, {**state, "seq": event.seq, "time": event.time, **event.data})
        if events:
            with self._changed:
                self._changed.notify_all()

    def _publish(self, job_id: str, event: str, data: dict[str, Any]) -> None:
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(job_id, event, data)
            except Exception:
                _log.exception("a subscriber failed at %s", event)

    def _pass_on_wish(self, job_id: str) -> None:
        if any(job.id == job_id for job in self._stack):
            self._send({"t": "wish", "job": job_id, "wish": self.store.get(job_id).wish})

    def _feed(self) -> None:
        """Give the worker the job it asked for, or tell it that a more urgent one waits."""
        if self._stopping or self._writes or self.state != "ready":
            if self._stopping and self._take is not None:
                self._take = None
                self._send({"t": "answer", "job": None})
            return
        if self._take is not None:
            take = self._take
            job = self.store.next_job(self.kinds, above=take["above"])
            if job is not None:
                job = self.store.start(job.id, host=take["host"])
                self._stack.append(job)
                self._take = None
                self._send({"t": "answer", "job": {**_for_worker(job), "secrets": self._secrets.get(job.id, {})}})
                self._publish_log()
            elif take["above"] is not None:
                self._take = None
                self._send({"t": "answer", "job": None})
        elif self._stack:
            first = self.store.next_job(self.kinds)
            priority = None if first is None else int(first.priority)
            if priority is not None and priority != self._told:
                self._told = priority
                self._send({"t": "waiting", "priority": priority})

    # ---- the worker process ----

    def _start_worker(self) -> None:
        self._enter("restarting" if self._started_at else "starting", "starting the worker process")
        self.log.forget_tail()
        self._started_at = self.last_beat = time.monotonic()
        try:
            self._process = WorkerProcess(self._config(), self._environment, self.log, self._hear, self._hear_end)
        except OSError as error:
            self._give_up_or_retry({**describe(error), "traceback": ""})

    def _hear(self, process: WorkerProcess, message: dict[str, Any], blob: bytes) -> None:
        self._post(partial(self._take_message, process, message, blob))

    def _hear_end(self, process: WorkerProcess, code: int) -> None:
        self._post(partial(self._worker_ended, process, code))

    def _config(self) -> dict[str, Any]:
        return {
            "workspace": asdict(self._workspace),
            "device": self._device,
            "setup": self._setup,
            "save_every": self._save_every,
            "kinds": {name: _kind_for_worker(kind) for name, kind in self.kinds.items()},
        }

    def _take_message(self, process: WorkerProcess, message: dict[str, Any], blob: bytes) -> None:
        if process is self._process:
            getattr(self, f"_on_{message['t']}")(message, blob)

    def _on_beat(self, message: dict[str, Any], blob: bytes) -> None:
        self.last_beat = time.monotonic()
        if self.state != "ready":
            self._tell_state()

    def _on_phase(self, message: dict[str, Any], blob: bytes) -> None:
        self._enter(self.state, message["text"])

    def _on_ready(self, message: dict[str, Any], blob: bytes) -> None:
        self.error = None
        self._enter("ready", "")

    def _on_setup_failed(self, message: dict[str, Any], blob: bytes) -> None:
        self.error = message["error"]

    def _on_take(self, message: dict[str, Any], blob: bytes) -> None:
        self._take, self._told = message, None

    def _on_submit(self, message: dict[str, Any], blob: bytes) -> None:
        try:
            job = submit_spec(self.store, self.kinds, JobSpec(**message["spec"]))
            self._send({"t": "answer", "id": job.id})
        except EaselError as error:
            self._send({"t": "answer", "error": error.to_json()})

    def _on_event(self, message: dict[str, Any], blob: bytes) -> None:
        self._publish(message["job"], message["event"], message["data"])

    def _on_preview(self, message: dict[str, Any], blob: bytes) -> None:
        self._publish(message["job"], "preview", {**message["data"], "image": blob})

    def _on_progress(self, message: dict[str, Any], blob: bytes) -> None:
        self._publish(message["job"], "job_progress", message["progress"])
        with suppress(StorageError):  # the next one will do
            self.store.progress(message["job"], Progress(**message["progress"]))

    def _on_done(self, message: dict[str, Any], blob: bytes) -> None:
        self._failures = 0
        self._ended(message, partial(self.store.finish, message["job"], message["result"]))

    def _on_failed(self, message: dict[str, Any], blob: bytes) -> None:
        self._failures = 0
        self._ended(message, partial(self.store.fail, message["job"], message["error"], message["result"]))

    def _on_cancelled(self, message: dict[str, Any], blob: bytes) -> None:
        self._ended(message, partial(self.store.set_cancelled, message["job"], message["result"]))

    def _on_unwound(self, message: dict[str, Any], blob: bytes) -> None:
        def report() -> Job:
            job = self.store.get(message["job"])
            put_back = message["stopping"] and job.state == JobState.running and not job.wish
            return self.store.put_back(job.id) if put_back else self.store.set_paused(job.id, held=False)

        self._ended(message, report)

    def _on_paused(self, message: dict[str, Any], blob: bytes) -> None:
        self._told = None
        self._report(partial(self.store.set_paused, message["job"], held=True))

    def _on_resumed(self, message: dict[str, Any], blob: bytes) -> None:
        self._report(partial(self.store.set_resumed, message["job"]))

    def _ended(self, message: dict[str, Any], report: Callable[[], Job]) -> None:
        self._stack = [job for job in self._stack if job.id != message["job"]]
        self._told = None
        self._report(report)

    def _worker_ended(self, process: WorkerProcess, code: int) -> None:
        if process is not self._process:
            return
        self._process = self._take = self._told = self._kill_at = None
        self._stack = []
        if self._stopping:
            self._report(partial(self.store.interrupt_held, StudioStopped().to_json(), counts=False))
            self._write_reports()
            self._enter("stopped", "")
            return
        reason = reason_of(code)
        _log.warning("the worker ended: %s", reason)
        error = {**WorkerDied(reason=reason).to_json(), "traceback": self.log.tail()}
        was_ready = self.state == "ready"
        if was_ready and time.monotonic() - self._started_at > _LIVED_LONG:
            self._failures = 0
        self._report(partial(self.store.interrupt_held, error))
        self._give_up_or_retry(None if was_ready else self.error or error)

    def _give_up_or_retry(self, setup_error: dict[str, Any] | None) -> None:
        """At once the first time, then after 1, 2, 4 ... 30 s. A set-up that always fails is given up."""
        self._failures += 1
        self.error = setup_error
        if setup_error is not None and self._failures >= _FEW_FAILURES:
            self._enter("failed", setup_error["en"])
            return
        delay = 0.0 if self._failures == 1 else min(30.0, 2.0 ** (self._failures - 2))
        self._restart_at = time.monotonic() + delay
        self._enter("restarting", f"starting again in {delay:.0f} s" if delay else "starting again")

    def _begin_stop(self) -> None:
        self._stopping = True
        self._restart_at = None
        if self._process is None:
            self._enter("stopped", "")
            return
        self._kill_at = time.monotonic() + self._grace
        self._send({"t": "stop"})
        if self.state != "ready":
            self._kill()  # nothing to save

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _try_again(self) -> None:
        if self.state == "failed":
            self._failures = 0
            self._start_worker()

    def _enter(self, state: State, phase: str) -> None:
        with self._changed:
            self.state, self.phase, self.phase_since = state, phase, time.monotonic()
            self._changed.notify_all()
        self._tell_state()

    def _tell_state(self) -> None:
        seconds = time.monotonic() - self.phase_since
        told = {"state": self.state, "phase": self.phase, "seconds": round(seconds), "error": self.error}
        self._publish("", "worker", told)

    def _send(self, message: dict[str, Any]) -> None:
        if self._process is not None:
            self._process.send(message)

    # ---- reports to the store ----

    def _report(self, write: Callable[[], Any]) -> None:
        self._writes.append(write)
        self._write_reports()

    def _write_reports(self) -> None:
        """In order. While the disk is full they wait, and no further job is started."""
        while self._writes:
            try:
                self._writes[0]()
            except StorageError:
                _log.exception("the job store could not be written; trying again")
                return
            except EaselError:
                _log.exception("a report of the worker came too late")
            self._writes.popleft()


def _for_worker(job: Job) -> dict[str, Any]:
    names = ("id", "kind", "settings", "priority", "client_id", "attempts")
    return {name: getattr(job, name) for name in names}


def _kind_for_worker(kind: JobKind) -> dict[str, Any]:
    return {"run": kind.run, "settings": f"{kind.settings.__module__}:{kind.settings.__qualname__}"}
