"""Messages between server and worker: frames of JSON with an optional blob over two byte streams.

JSON, not pickle: nothing the worker sends can make the server import torch (or run code). The streams are the worker's
stdin and stdout, so that there is no port or socket that others could reach, and either side sees the other's end as
an end of file.
"""

from __future__ import annotations

import json
import struct
import threading
import time
from contextlib import suppress
from pathlib import PurePath
from typing import IO, Any

_HEAD = struct.Struct("<II")  # length of the JSON, length of the blob
SOON = 0.003  # seconds that a message may wait for others to go with it
BURST = 32  # messages that may go at once, one after another
LONGEST_WAIT = 64 * 1024  # bytes that wait at most


class Pipe:
    """`send` and `send_soon` may be called by many threads, `receive` by one. Messages arrive in order."""

    def __init__(self, reader: IO[bytes], writer: IO[bytes]) -> None:
        self._reader = reader
        self._writer = writer
        self._lock = threading.Lock()
        self._waiting = bytearray()
        self._tokens = float(BURST)
        self._counted = time.monotonic()
        self._filled = threading.Event()
        self._sender: threading.Thread | None = None

    def send(self, message: dict[str, Any], blob: bytes = b"") -> None:
        """Raises OSError when the other side is gone, TypeError when the message is not JSON."""
        frame = _frame(message, blob)
        with self._lock:
            self._waiting += frame
            self._write()

    def send_soon(self, message: dict[str, Any]) -> None:
        """The same for one of many small messages: at once while there are few, so that nothing is lost in a crash, and
        some milliseconds later together with others when there are hundreds a second."""
        frame = _frame(message)
        with self._lock:
            now = time.monotonic()
            self._tokens = min(BURST, self._tokens + (now - self._counted) / SOON)
            self._counted = now
            self._waiting += frame
            if self._tokens >= 1 or len(self._waiting) > LONGEST_WAIT:
                self._tokens = max(0.0, self._tokens - 1)
                self._write()
                return
            if self._sender is None:
                self._sender = threading.Thread(target=self._send_waiting, name="pipe", daemon=True)
                self._sender.start()
        self._filled.set()

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """Blocks. Raises EOFError when the other side is gone."""
        text_size, blob_size = _HEAD.unpack(self._exactly(_HEAD.size))
        text = self._exactly(text_size)
        return json.loads(text), self._exactly(blob_size)

    def close_writer(self) -> None:
        """What is sent from now on fails with OSError."""
        with self._lock, suppress(OSError):  # what it still had to write can't be written
            self._writer.close()

    def _write(self) -> None:
        if self._writer.closed:
            raise BrokenPipeError
        waiting, self._waiting = self._waiting, bytearray()
        if waiting:
            self._writer.write(waiting)
            self._writer.flush()

    def _send_waiting(self) -> None:
        while True:
            self._filled.wait()
            time.sleep(SOON)
            self._filled.clear()
            try:
                with self._lock:
                    self._write()
            except OSError:  # whoever sends next hears of it
                return

    def _exactly(self, size: int) -> bytes:
        data = self._reader.read(size) if size else b""
        if len(data) < size:
            raise EOFError
        return data


def _frame(message: dict[str, Any], blob: bytes = b"") -> bytes:
    text = json.dumps(message, default=_plain, separators=(",", ":")).encode()
    return _HEAD.pack(len(text), len(blob)) + text + blob


def _plain(value: Any) -> Any:
    """What json.dumps does not know: paths, and scalars of numpy or torch."""
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return value.item()
    raise TypeError(f"{type(value).__name__} can't be sent as JSON")
