"""How a running studio is found: `server.json` in its workspace, with its address and a token that ends with it."""

from __future__ import annotations

import json
import os
import secrets
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from engine.workspace import Workspace


@dataclass(frozen=True)
class Presence:
    pid: int
    host: str  # to connect to
    port: int
    token: str

    @property
    def url(self) -> str:
        return f"http://{'[' + self.host + ']' if ':' in self.host else self.host}:{self.port}"


@contextmanager
def announced(workspace: Workspace, presence: Presence) -> Iterator[None]:
    """Leave the note for as long as the server runs."""
    path = workspace.root / "server.json"
    temporary = path.with_name(f".server.{secrets.token_hex(4)}.json")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(asdict(presence), file)
    os.replace(temporary, path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def find(workspace: Workspace) -> Presence | None:
    """The studio that serves this workspace now, if it answers."""
    try:
        found = Presence(**json.loads((workspace.root / "server.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    if not psutil.pid_exists(found.pid):
        return None
    try:
        status = call(found, "GET", "/studio/status")
    except (OSError, ValueError):
        return None
    return found if status.get("pid") == found.pid else None


def call(presence: Presence, method: str, path: str, body: Any = None, timeout: float = 30.0) -> Any:
    """One JSON request to the running studio. Raises urllib.error.HTTPError, OSError, ValueError."""
    request = urllib.request.Request(
        presence.url + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {presence.token}", "Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy: it is this machine
    with opener.open(request, timeout=timeout) as answer:
        data = answer.read()
    return json.loads(data) if data else None
