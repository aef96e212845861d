"""The worker process: owns one device and runs jobs, one inside another's checkpoint when somebody waits.

Three threads: the *reader* takes messages of the server and only sets flags, so that a cancel arrives at once; the
*control* thread answers requests and flushes progress while the *main* thread is busy with a long node; the main thread
runs jobs. It ends by itself when its server is gone. It imports no torch: the studio's `setup` function does.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import logging
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import collecting
from engine.errors import Cancelled, describe
from engine.jobs.context import NOTHING_WAITS, RunningJob
from engine.jobs.errors import RemoteError, UnknownRequest, from_json
from engine.jobs.pipe import Pipe
from engine.jobs.secrets import masked
from engine.jobs.types import Paused
from engine.settings import checked
from engine.workspace import Workspace

if TYPE_CHECKING:
    pass

_BEAT_EVERY = 2.0
_log = logging.getLogger("easel.worker")


class WorkerHandle:
    """What the `setup` function of the studio gets, and where it leaves what jobs use."""

    def __init__(self, workspace: Workspace, device: str, pipe: Pipe) -> None:
        self.workspace = workspace
        self.device = device
        self.models: Any = None  # the ModelManager
        self.kept: dict[type, Any] = {}  # what jobs leave for later ones
        self.handlers: dict[str, Callable[[Any], Any]] = {"stacks": lambda _: _stacks()}
        # Entered around every job that runs inside another, to keep random states and modes of the outer one.
        self.around_nested: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext
        self._pipe = pipe

    def phase(self, text: str) -> None:
        """Say what the worker does while it is not ready yet ("importing torch")."""
        self._pipe.send({"t": "phase", "text": text})

    def emit(self, event: str, **data: Any) -> None:
        """An event that belongs to no job."""
        self._pipe.send({"t": "event", "job": "", "event": event, "data": data})


class Worker:
    def __init__(self, pipe: Pipe, config: dict[str, Any]) -> None:
        self.pipe = pipe
        self.save_every: float = config["save_every"]
        self.waiting = NOTHING_WAITS  # the most urgent priority in line, as far as the server has said
        self.stopping = False
        self._kinds: dict[str, dict[str, Any]] = config["kinds"]
        self._running: dict[str, RunningJob] = {}
        self._news = threading.Condition()
        self._answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._control: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._wishes: dict[str, str] = {}
        self._asking = threading.Lock()
        self.handle = WorkerHandle(_workspace(config["workspace"]), config["device"], pipe)
        self._setup: str = config["setup"]

    def main(self) -> int:
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        threading.Thread(target=self._beat, name="beat", daemon=True).start()
        try:
            if self._setup:
                _load(self._setup)(self.handle)
        except Exception as error:
            self.pipe.send({"t": "setup_failed", "error": _error(error)})
            return 3
        threading.Thread(target=self._answer, name="control", daemon=True).start()
        collecting.settle()
        self.pipe.send({"t": "ready", "pid": os.getpid()})
        collector = collecting.Collector()
        while not self.stopping:
            job = self.take(above=None, host="")
            if job is not None:
                self.run(job, host=None)
                collector.after_job()
        return 0

    # ---- running jobs (main thread) ----

    def take(self, above: int | None, host: str) -> dict[str, Any] | None:
        """The next job from the server. With `above` None it waits for one; else only a more urgent one, or None."""
        self.waiting = NOTHING_WAITS
        return self.ask({"t": "take", "above": above, "host": host})["job"]

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Ask the server something and wait; one question at a time, so that answers need no number."""
        with self._asking:
            self.pipe.send(message)
            answer = self._answers.get()
        if answer.get("error"):
            raise from_json(answer["error"])
        return answer

    def run(self, job: dict[str, Any], host: RunningJob | None) -> None:
        """The job boundary: whatever happens in there becomes a message."""
        context = RunningJob(self, job, host)
        with self._news:
            self._running[job["id"]] = context
            context.wish = self._wishes.pop(job["id"], "")
        ended: dict[str, Any] = {"job": job["id"]}
        try:
            kind = self._kinds[job["kind"]]
            settings = checked(_load(kind["settings"]), job["settings"], job["kind"])
            result = _load(kind["run"])(context, settings)
            ended |= {"t": "done", "result": result}
        except Cancelled as error:
            ended |= {"t": "cancelled", "result": getattr(error, "result", None)}
        except Paused:
            ended |= {"t": "unwound", "stopping": self.stopping}
        except BaseException as error:
            told = masked(_error(error), context.secrets.values())
            ended |= {"t": "failed", "error": told, "result": getattr(error, "result", None)}
            _log.error("job %s (%s) failed\n%s", job["id"], job["kind"], ended["error"]["traceback"])
        context.flush()
        with self._news:
            del self._running[job["id"]]
        try:
            self.pipe.send(ended)
        except (TypeError, ValueError) as error:
            error = ended.get("error") or masked(_error(error), context.secrets.values())
            self.pipe.send({"t": "failed", "job": job["id"], "error": error, "result": None})

    def wait_for_news(self, arrived: Callable[[], bool]) -> None:
        with self._news:
            self._news.wait_for(arrived)

    def forget_resume(self, context: RunningJob) -> None:
        with self._news:
            if context.wish != "resume":
                return
            context.wish = ""
        self.pipe.send({"t": "resumed", "job": context.job_id})

    def flush_later(self, context: RunningJob) -> None:
        """Progress that came too soon after the last is sent by the control thread if nothing newer comes."""
        if not context.flush_queued:
            context.flush_queued = True
            self._control.put(("flush", context))

    # ---- the other threads ----

    def _read(self) -> None:
        while True:
            try:
                self._take_message(self.pipe.receive()[0])
            except (EOFError, OSError, ValueError):
                _die()

    def _take_message(self, message: dict[str, Any]) -> None:
        kind = message["t"]
        if kind == "request":
            self._control.put(("request", message))
        elif kind == "answer":
            self._answers.put(message)
        else:
            with self._news:
                if kind == "waiting":
                    self.waiting = message["priority"]
                elif kind == "wish" and message["job"] in self._running:
                    self._running[message["job"]].wish = message["wish"]
                elif kind == "wish":  # sent after the job, which the main thread has not picked up yet
                    self._wishes[message["job"]] = message["wish"]
                elif kind == "stop":
                    self.stopping = True
                self._news.notify_all()

    def _answer(self) -> None:
        unflushed: list[RunningJob] = []
        while True:
            due = min((context.may_send_at() for context in unflushed), default=None)
            try:
                what, item = self._control.get(timeout=None if due is None else max(0.0, due - time.monotonic()))
            except queue.Empty:
                now = time.monotonic()
                for context in [context for context in unflushed if context.may_send_at() <= now]:
                    unflushed.remove(context)
                    context.flush_queued = False
                    context.flush()
                continue
            if what == "flush":
                unflushed.append(item)
            else:
                self.pipe.send(self._handle(item))

    def _handle(self, request: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = {"t": "reply", "id": request["id"]}
        try:
            handler = self.handle.handlers.get(request["name"])
            if handler is None:
                raise UnknownRequest(name=request["name"], known=", ".join(sorted(self.handle.handlers)))
            return answer | {"value": handler(request["payload"])}
        except BaseException as error:  # also SystemExit: this thread answers for everybody
            return answer | {"error": _error(error)}

    def _beat(self) -> None:
        while True:
            time.sleep(_BEAT_EVERY)
            with contextlib.suppress(OSError):  # the reader ends the process when the server is gone
                self.pipe.send({"t": "beat"})


def _error(error: BaseException) -> dict[str, Any]:
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, RemoteError):
        return {**error.to_json(), "traceback": trace}
    return {**describe(error), "traceback": trace}


def _workspace(fields: dict[str, Any]) -> Workspace:
    """From JSON: paths are text there."""
    more = {key: {name: tuple(map(Path, paths)) for name, paths in fields[key].items()} for key in ("extra", "first")}
    output = Path(fields["output_dir"]) if fields["output_dir"] else None
    return Workspace(**{**fields, "root": Path(fields["root"]), **more, "output_dir": output})


def _load(path: str) -> Any:
    """ "package.module:name" imported."""
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _stacks() -> str:
    """Where every thread is now, for the System tab."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames().items()
    return "\n".join(f"{names.get(ident, ident)}\n{''.join(traceback.format_stack(frame))}" for ident, frame in frames)


def _die() -> None:
    """The server is gone: end at once, together with what this process started."""
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


def _private_pipe() -> Pipe:
    """Stdin and stdout as the pipe to the server; what jobs print goes to stderr, which the server keeps as the log."""
    reader, writer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)  # noqa: SIM115
    return Pipe(reader, writer)


def _be_a_good_victim() -> None:
    """When memory runs out on Linux, this process is to be killed, not the page."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def main() -> int:
    pipe = _private_pipe()
    config, _ = pipe.receive()
    sys.path[:] = config["sys_path"]
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which stops us properly
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _be_a_good_victim()
    return Worker(pipe, config).main()


if __name__ == "__main__":
    from engine.jobs import worker  # the module under its own name, so that there is one copy of its classes

    code = worker.main()
    sys.stderr.flush()
    os._exit(code)  # threads of libraries are not waited for
