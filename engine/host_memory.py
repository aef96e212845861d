"""How much of the machine's memory this process may use: of the machine, or of the container that it runs in."""

from __future__ import annotations

from pathlib import Path

import psutil


def total() -> int:
    """Bytes in all."""
    return min(psutil.virtual_memory().total, _limit())


def available() -> int:
    """Bytes that can be had now."""
    return max(0, min(psutil.virtual_memory().available, _limit() - _used()))


def _limit() -> int:
    """Bytes this container may use; /proc shows the whole machine."""
    text = _read("/sys/fs/cgroup/memory.max") or _read("/sys/fs/cgroup/memory/memory.limit_in_bytes")
    return int(text) if text.isdigit() else 1 << 62


def _used() -> int:
    text = _read("/sys/fs/cgroup/memory.current") or _read("/sys/fs/cgroup/memory/memory.usage_in_bytes")
    cached = _read("/sys/fs/cgroup/memory.stat")
    inactive = next((int(line.split()[1]) for line in cached.splitlines() if line.startswith("inactive_file ")), 0)
    return max(0, int(text) - inactive) if text.isdigit() else 0


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
