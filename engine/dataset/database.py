"""The SQLite file of a dataset: its tables, one transaction at a time, and the revision that grows with every write.

It is used from several threads and processes: WAL, one connection per object, one lock around it. synchronous=NORMAL
survives any kill of the process, not a power cut.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from engine.errors import FileError

SCHEMA_VERSION = 2
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pictures (
    id INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE, width INTEGER NOT NULL, height INTEGER NOT NULL,
    mode TEXT NOT NULL, format TEXT NOT NULL, bytes INTEGER NOT NULL, added REAL NOT NULL,
    removed INTEGER NOT NULL DEFAULT 0, caption INTEGER, measures TEXT, revision INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, picture INTEGER, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    problem TEXT, sidecar TEXT, revision INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS terms (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, category TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sources (
    id INTEGER PRIMARY KEY, tool TEXT NOT NULL, version TEXT NOT NULL, settings_hash TEXT NOT NULL,
    settings TEXT NOT NULL, policy TEXT NOT NULL, created REAL NOT NULL, revision INTEGER NOT NULL,
    UNIQUE (tool, version, settings_hash));
CREATE TABLE IF NOT EXISTS readings (
    picture INTEGER NOT NULL, source INTEGER NOT NULL, terms BLOB NOT NULL, scores BLOB NOT NULL,
    cuts TEXT NOT NULL, created REAL NOT NULL, revision INTEGER NOT NULL, UNIQUE (picture, source));
CREATE TABLE IF NOT EXISTS decisions (
    picture INTEGER NOT NULL, term INTEGER NOT NULL, state INTEGER NOT NULL, time REAL NOT NULL,
    revision INTEGER NOT NULL, PRIMARY KEY (picture, term)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS captions (
    id INTEGER PRIMARY KEY, picture INTEGER NOT NULL, source INTEGER NOT NULL,
    text TEXT NOT NULL, created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS regions (
    picture INTEGER NOT NULL, source INTEGER NOT NULL, regions TEXT NOT NULL, created REAL NOT NULL,
    revision INTEGER NOT NULL, PRIMARY KEY (picture, source)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks (
    picture INTEGER NOT NULL, kind TEXT NOT NULL, value TEXT NOT NULL, revision INTEGER NOT NULL,
    PRIMARY KEY (picture, kind)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS votes (
    first INTEGER NOT NULL, second INTEGER NOT NULL, better INTEGER, time REAL NOT NULL,
    PRIMARY KEY (first, second)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, title TEXT NOT NULL, state TEXT NOT NULL,
    changes BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS pictures_revision ON pictures (revision);
CREATE INDEX IF NOT EXISTS files_picture ON files (picture);
CREATE INDEX IF NOT EXISTS readings_revision ON readings (revision);
CREATE INDEX IF NOT EXISTS decisions_revision ON decisions (revision);
CREATE INDEX IF NOT EXISTS captions_picture ON captions (picture);
CREATE INDEX IF NOT EXISTS captions_source ON captions (source);
CREATE INDEX IF NOT EXISTS readings_source ON readings (source);
CREATE INDEX IF NOT EXISTS marks_revision ON marks (revision);
"""


class DatasetFromTheFuture(FileError):
    en = "{path} was written by a newer Easel (format {found}, this one reads {known}). Update Easel."
    zh = "{path} 由更新版本的 Easel 写入（格式 {found}，当前版本支持 {known}）。请更新 Easel。"


class DatasetDamaged(FileError):
    en = (
        "{path} can't be read as a dataset: {reason}. Restore it from a backup, or delete it to start the dataset anew."
    )
    zh = "无法将 {path} 作为数据集读取：{reason}。请从备份恢复，或删除它以重新建立数据集。"


class Database:
    """Rows in and out. Methods are safe to call from any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._depth = 0
        try:
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise DatasetFromTheFuture(path=path, found=version, known=SCHEMA_VERSION)
            if version < SCHEMA_VERSION:
                self._db.executescript(_SCHEMA)
                self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        except sqlite3.DatabaseError as error:
            raise DatasetDamaged(path=path, reason=error) from error

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def writing(self) -> Iterator[int]:
        """One transaction; all of it or nothing. Yields the revision that its rows get."""
        with self._lock:
            if self._depth:
                yield self.revision()
                return
            self._db.execute("BEGIN IMMEDIATE")
            self._depth = 1
            try:
                revision = self.revision() + 1
                self._set_meta("revision", revision)
                yield revision
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            finally:
                self._depth = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """One moment of the database for all reads inside, whatever other processes write meanwhile."""
        with self._lock:
            if self._depth:
                yield
                return
            self._db.execute("BEGIN")
            self._depth = 1
            try:
                yield
            finally:
                self._depth = 0
                self._db.execute("COMMIT")

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def write(self, sql: str, values: tuple[Any, ...]) -> None:
        """One statement; only inside `writing`."""
        with self._lock:
            if not self._depth:
                raise RuntimeError("write outside of a transaction")
            self._db.execute(sql, values)

    def revision(self) -> int:
        """Grows with every write of any process: readers refresh what is newer than what they have."""
        return int(self.meta("revision", 0))

    def meta(self, key: str, default: Any = None) -> Any:
        found = self.rows("SELECT value FROM meta WHERE key=?", key)
        return json.loads(found[0][0]) if found else default

    def set_meta(self, key: str, value: Any) -> None:
        """A value that is no edit of the user's and so has no event, such as the folder of the pictures."""
        with self.writing():
            self._set_meta(key, value)

    def _set_meta(self, key: str, value: Any) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, json.dumps(value)))


def parts(values: list[Any], size: int = 900) -> Iterator[list[Any]]:
    """SQLite takes a limited number of values in one statement."""
    for start in range(0, len(values), size):
        yield values[start : start + size]
