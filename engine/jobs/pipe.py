"""Messages between server and worker: frames of JSON with an optional blob over two byte streams.

JSON, not pickle: nothing the worker sends can make the server import torch (or run code). The streams are the worker's
stdin and stdout, so that there is no port or socket that others could reach, and either side sees the other's end as
an end of file.
"""

from __future__ import annotations

import json
import struct
import threading
from contextlib import suppress
from pathlib import PurePath
from typing import IO, Any

_HEAD = struct.Struct("<II")  # length of the JSON, length of the blob


class Pipe:
    """`send` may be called by many threads, `receive` by one."""

    def __init__(self, reader: IO[bytes], writer: IO[bytes]) -> None:
        self._reader = reader
        self._writer = writer
        self._lock = threading.Lock()

    def send(self, message: dict[str, Any], blob: bytes = b"") -> None:
        """Raises OSError when the other side is gone, TypeError when the message is not JSON."""
        text = json.dumps(message, default=_plain, separators=(",", ":")).encode()
        frame = _HEAD.pack(len(text), len(blob)) + text + blob
        with self._lock:
            if self._writer.closed:
                raise BrokenPipeError
            self._writer.write(frame)
            self._writer.flush()

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """Blocks. Raises EOFError when the other side is gone."""
        text_size, blob_size = _HEAD.unpack(self._exactly(_HEAD.size))
        text = self._exactly(text_size)
        return json.loads(text), self._exactly(blob_size)

    def close_writer(self) -> None:
        """What is sent from now on fails with OSError."""
        with self._lock, suppress(OSError):  # what it still had to write can't be written
            self._writer.close()

    def _exactly(self, size: int) -> bytes:
        data = self._reader.read(size) if size else b""
        if len(data) < size:
            raise EOFError
        return data


def _plain(value: Any) -> Any:
    """What json.dumps does not know: paths, and scalars of numpy or torch."""
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return value.item()
    raise TypeError(f"{type(value).__name__} can't be sent as JSON")
