"""One worker process as the server sees it: started, listened to, asked, killed. It knows no jobs."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.jobs.errors import WorkerGone, from_json
from engine.jobs.logfile import RotatingLog
from engine.jobs.pipe import Pipe


class WorkerProcess:
    """`heard(process, message, blob)` and, once and last, `ended(process, code)` are called from threads of ours.

    Raises OSError when the process can't be started.
    """

    def __init__(
        self,
        config: dict[str, Any],
        environment: dict[str, str],
        log: RotatingLog,
        heard: Callable[[WorkerProcess, dict[str, Any], bytes], None],
        ended: Callable[[WorkerProcess, int], None],
    ) -> None:
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "engine.jobs.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment, "PYTHONPATH": path},
            start_new_session=os.name == "posix",  # so that what it starts can be killed with it
        )
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._pipe = Pipe(self._process.stdout, self._process.stdin)
        self._requests: dict[int, tuple[str, Future[Any]]] = {}
        self._numbers = itertools.count(1)
        self._heard = heard
        self._ended = ended
        logger = log.follow(self._process.stderr)
        reader = threading.Thread(target=self._read, name="worker pipe", daemon=True)
        reader.start()
        threading.Thread(target=self._watch, args=(reader, logger), name="worker watch", daemon=True).start()
        self.send({**config, "sys_path": sys.path})

    def send(self, message: dict[str, Any]) -> None:
        with suppress(OSError):  # it is dying: `ended` comes
            self._pipe.send(message)

    def request(self, name: str, payload: Any, timeout: float) -> Any:
        """What its handler answers. Raises TimeoutError, WorkerGone, and what the handler raised as RemoteError."""
        number = next(self._numbers)
        future: Future[Any] = Future()
        self._requests[number] = (name, future)
        try:
            self._pipe.send({"t": "request", "id": number, "name": name, "payload": payload})
            return future.result(max(0.0, timeout))
        except TimeoutError:
            raise
        except OSError:
            raise WorkerGone(name=name) from None
        finally:
            self._requests.pop(number, None)

    def kill(self) -> None:
        self._process.kill()

    def _read(self) -> None:
        with suppress(EOFError, OSError, ValueError):
            while True:
                message, blob = self._pipe.receive()
                if message["t"] == "reply":
                    self._resolve(message)
                else:
                    self._heard(self, message, blob)

    def _resolve(self, reply: dict[str, Any]) -> None:
        _, future = self._requests.get(reply["id"], ("", None))
        if future is None:
            return  # it came too late
        if "error" in reply:
            future.set_exception(from_json(reply["error"]))
        else:
            future.set_result(reply["value"])

    def _watch(self, reader: threading.Thread, logger: threading.Thread) -> None:
        code = self._process.wait()
        if os.name == "posix":  # what it had started itself; those would keep its pipes open
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._pipe.close_writer()
        for thread, stream in ((reader, self._process.stdout), (logger, self._process.stderr)):
            thread.join(2)
            if not thread.is_alive() and stream:  # else a detached child of the worker has it, and closing would block
                stream.close()
        for name, future in list(self._requests.values()):
            if not future.done():
                future.set_exception(WorkerGone(name=name))
        self._ended(self, code)


def reason_of(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal
        name = f"signal {-code}"
    return f"killed by {name}, perhaps because memory ran out" if name == "SIGKILL" else f"killed by {name}"
