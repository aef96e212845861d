"""A lock file that the operating system lets go when its process ends, however it ends."""

from __future__ import annotations

import errno
import logging
import os
import sys
from pathlib import Path

from engine.jobs.errors import StudioRunning

_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_log = logging.getLogger(__name__)
_FAR = 1 << 20  # Windows locks bytes, and locked ones can't be read: keep off the process id


class StudioLock:
    """Held by the one studio that runs the jobs of a workspace."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def take(self) -> None:
        """Raises StudioRunning with the other's process id."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(handle)
        except OSError as error:
            if error.errno not in _HELD:  # some network file systems know no locks
                _log.warning("%s can't be locked (%s): take care to start one studio only", self._path, error)
                self._handle = handle
                return
            pid = os.read(handle, 20).decode(errors="replace").strip() or "?"
            os.close(handle)
            raise StudioRunning(pid=pid, folder=self._path.parent) from None
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        self._handle = handle

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _lock(handle: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(handle, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(handle, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
