"""Which packs have ended the worker while they were loaded: written down before each, so that none of them can keep the
worker from ever starting. It knows nothing of what packs are."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.workspace import replacing

FILE = "packs_attempts.json"  # in the cache folder
ENOUGH = 2  # once may have been somebody who stopped the studio just then


class Attempts:
    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._begun: dict[str, dict[str, Any]] = {}
        with suppress(OSError, ValueError):
            self._begun = json.loads(self._file.read_text(encoding="utf-8"))

    def are_enough(self, path: Path, step: str) -> bool:
        """Whether it did not survive that step the last times, and has not changed since."""
        return self._times(path, step) >= ENOUGH

    def begin(self, path: Path, step: str) -> None:
        self._begun[f"{step} {path}"] = {"times": self._times(path, step) + 1, "changed": _changed(path)}
        self._write()

    def end(self, path: Path, step: str) -> None:
        del self._begun[f"{step} {path}"]
        self._write()

    def _times(self, path: Path, step: str) -> int:
        before = self._begun.get(f"{step} {path}", {})
        return before.get("times", 0) if before.get("changed") == _changed(path) else 0

    def _write(self) -> None:
        with replacing(self._file, "w") as file:
            json.dump(self._begun, file)


def _changed(path: Path) -> float:
    files = [path / "__init__.py", path / "prestartup_script.py"] if path.is_dir() else [path]
    return max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)
