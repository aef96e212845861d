"""Who may come in: the password (scrypt), API tokens (sha256), signed sessions, and the brake on guessing.

It knows no HTTP. What must outlive a restart lies in `access.json` in the workspace, readable by its owner only.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import InputError

SCRYPT = {"n": 2**14, "r": 8, "p": 1}  # 16 MiB and about 50 ms a try
FREE_TRIES = 5
PEOPLE = ("local", "owner")  # what a person is called in the queue; see gate.py
LONGEST_WAIT = 300.0


class BadTokenName(InputError):
    en = "'{name}' can't be a token's name: use 1 to 60 characters, and not the names of people (local, owner)."
    zh = "“{name}”不能作为令牌名称：请使用 1 到 60 个字符，且不能是 local 或 owner。"


class Access:
    """The secrets of one studio. Safe to use from several threads; the file is read again when it changed."""

    def __init__(self, path: Path, session_days: int = 30, announce: Callable[[str], None] | None = None) -> None:
        self._path = path
        self._lifetime = session_days * 86400
        self._announce = announce or (lambda password: None)
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._data: dict[str, Any] = {}
        self._passing: dict[str, str] = {}
        with self._lock:
            self._read()

    @property
    def has_password(self) -> bool:
        with self._lock:
            self._read()
            return bool(self._data.get("password"))

    def ensure_password(self) -> None:
        """Make a password and announce it, when there is none yet. It is never shown again."""
        with self._lock:
            self._read()
            if self._data.get("password"):
                return
            password = generate_password()
            self._data["password"] = _hash(password)
            self._write()
        self._announce(password)

    def set_password(self, password: str) -> None:
        """Takes the place of the old one; every session opened with that one ends."""
        with self._lock:
            self._read()
            self._data["password"] = _hash(password)
            self._write()

    def check_password(self, password: str) -> bool:
        """Takes about 50 ms."""
        with self._lock:
            self._read()
            stored = self._data.get("password")
        if not stored:
            return False
        return hmac.compare_digest(_hash(password, stored["salt"])["hash"], stored["hash"])

    def new_session(self) -> str:
        with self._lock:
            self._read()
            until = int(time.time()) + self._lifetime
            body = f"{until}.{self._password_mark()}.{secrets.token_hex(8)}"
            return f"{body}.{self._sign(body)}"

    def session_ok(self, cookie: str) -> bool:
        body, _, signature = cookie.rpartition(".")
        parts = body.split(".")
        with self._lock:
            self._read()
            if len(parts) != 3 or not hmac.compare_digest(signature.encode(), self._sign(body).encode()):
                return False
            return int(parts[0]) > time.time() and hmac.compare_digest(parts[1], self._password_mark())

    @property
    def session_seconds(self) -> int:
        return self._lifetime

    def new_token(self, name: str) -> str:
        """An API token; only its sha256 is kept. Raises BadTokenName."""
        name = name.strip()
        if not name or len(name) > 60 or name.lower() in PEOPLE or not name.isprintable():
            raise BadTokenName(
                name=name[:60].encode("unicode_escape").decode() if not name.isprintable() else name[:60]
            )
        token = "easel_" + secrets.token_urlsafe(32)
        with self._lock:
            self._read()
            self._data["tokens"][_digest(token)] = {"name": name, "created": int(time.time())}
            self._write()
        return token

    def passing_token(self, name: str) -> str:
        """A token that is forgotten when this process ends (the command line gets one through the lock file)."""
        token = "easel_" + secrets.token_urlsafe(32)
        self._passing[_digest(token)] = name
        return token

    def is_passing(self, token: str) -> bool:
        """Whether it is one of this very process, which the owner's own command line uses."""
        return _digest(token) in self._passing

    def token_name(self, token: str) -> str | None:
        digest = _digest(token)
        if digest in self._passing:
            return self._passing[digest]
        with self._lock:
            self._read()
            row = self._data["tokens"].get(digest)
        return row["name"] if row else None

    def tokens(self) -> list[dict[str, Any]]:
        """[{"id", "name", "created"}]; `id` revokes, it does not open anything."""
        with self._lock:
            self._read()
            return [{"id": digest[:12], **row} for digest, row in self._data["tokens"].items()]

    def revoke_token(self, token_id: str) -> bool:
        with self._lock:
            self._read()
            found = [digest for digest in self._data["tokens"] if digest[:12] == token_id]
            for digest in found:
                del self._data["tokens"][digest]
            if found:
                self._write()
            return bool(found)

    def _password_mark(self) -> str:
        """Changes with the password, so that sessions end with it."""
        return hashlib.sha256(str(self._data.get("password")).encode()).hexdigest()[:16]

    def _sign(self, body: str) -> str:
        key = base64.b64decode(self._data["secret"])
        return hmac.new(key, body.encode(), "sha256").hexdigest()

    def _read(self) -> None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._data = {"secret": base64.b64encode(secrets.token_bytes(32)).decode(), "password": None, "tokens": {}}
            self._write()
            return
        stamp = (status.st_mtime_ns, status.st_size)
        if stamp != self._stamp:
            self._data = json.loads(self._path.read_text(encoding="utf-8"))
            self._stamp = stamp

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(self._data, file, indent=1)
        os.replace(temporary, self._path)
        status = self._path.stat()
        self._stamp = (status.st_mtime_ns, status.st_size)


@dataclass
class Throttle:
    """Per address and over all: some free tries, then a wait that doubles up to five minutes."""

    clock: Callable[[], float] = time.monotonic
    free: int = FREE_TRIES
    _failures: dict[str, tuple[int, float]] = field(default_factory=dict)

    def wait(self, address: str) -> float:
        """Seconds until the next try from this address is heard; 0 = now."""
        return max(self._wait(address, self.free), self._wait("", self.free * 10))

    def failed(self, address: str) -> None:
        now = self.clock()
        if len(self._failures) > 10_000:  # a stranger chooses the addresses behind some proxies: stay small
            self._failures = {key: row for key, row in self._failures.items() if now - row[1] < LONGEST_WAIT}
        for key in (address, ""):
            count, last = self._failures.get(key, (0, now))
            if now - last > 2 * LONGEST_WAIT:
                count = 0
            self._failures[key] = (count + 1, now)

    def succeeded(self, address: str) -> None:
        self._failures.pop(address, None)

    def _wait(self, key: str, free: int) -> float:
        count, last = self._failures.get(key, (0, 0.0))
        if count < free:
            return 0.0
        return max(0.0, last + min(LONGEST_WAIT, 2.0 ** (count - free + 1)) - self.clock())


def generate_password() -> str:
    """64 random bits in four groups: easy to type on a phone."""
    return "-".join(secrets.token_hex(2) for _ in range(4))


def _hash(password: str, salt: str = "") -> dict[str, str]:
    salt = salt or secrets.token_hex(16)
    return {"salt": salt, "hash": hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), dklen=32, **SCRYPT).hex()}


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
