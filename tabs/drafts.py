"""What people have typed and not yet used, kept on the server: one JSON file a tab, so that no reload loses it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from engine.workspace import inside, replacing


class Drafts:
    """`put` merges, so that two forms of one tab do not erase each other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def get(self, tab: str) -> dict[str, Any]:
        try:
            value = json.loads(self._path(tab).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def put(self, tab: str, values: dict[str, Any]) -> None:
        with self._lock:
            merged = {**self.get(tab), **values}
            with replacing(self._path(tab), "w") as file:
                json.dump(merged, file, ensure_ascii=False)

    def _path(self, tab: str) -> Path:
        return inside(self._folder, f"{tab}.json")
