"""What a process writes to stderr, kept in a file of bounded size."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import IO


class RotatingLog:
    """`worker.log`, and `worker.log.1` with what came before it; `tail` is the end of it from memory."""

    def __init__(self, path: Path, limit: int = 2_000_000, tail: int = 8_000) -> None:
        self.path = path
        self._limit = limit
        self._kept = tail
        self._tail = b""
        self._lock = threading.Lock()

    def tail(self) -> str:
        return self._tail.decode("utf-8", "replace")

    def forget_tail(self) -> None:
        self._tail = b""

    def write(self, data: bytes) -> None:
        """Never raises: a full disk must not stop the process that logs."""
        with self._lock:
            self._tail = (self._tail + data)[-self._kept :]
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                if self.path.exists() and self.path.stat().st_size + len(data) > self._limit:
                    self.path.replace(self.path.with_name(self.path.name + ".1"))
                with self.path.open("ab") as file:
                    file.write(data)
            except OSError:
                pass

    def follow(self, stream: IO[bytes]) -> threading.Thread:
        """A thread that copies the stream until its end."""

        def copy() -> None:
            while data := stream.read1(65536):  # pyright: ignore[reportAttributeAccessIssue]
                self.write(data)

        thread = threading.Thread(target=copy, name="worker log", daemon=True)
        thread.start()
        return thread
