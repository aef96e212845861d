"""The tables of the job store, and opening the file that holds them."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from engine.jobs.errors import StoreTooNew

# One script per schema version, in order; never changed once released, only added to.
_SCHEMA = (
    """
    CREATE TABLE jobs (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        settings TEXT NOT NULL,
        state TEXT NOT NULL,
        priority INTEGER NOT NULL,
        position REAL NOT NULL,
        title TEXT NOT NULL,
        user TEXT NOT NULL,
        client_id TEXT NOT NULL,
        resumable INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        created REAL NOT NULL,
        started REAL,
        finished REAL,
        progress TEXT NOT NULL DEFAULT '{}',
        result TEXT,
        error TEXT,
        wish TEXT NOT NULL DEFAULT '',
        held INTEGER NOT NULL DEFAULT 0,
        host TEXT NOT NULL DEFAULT ''
    );
    CREATE INDEX jobs_in_line ON jobs (state, priority, position, seq);
    CREATE INDEX jobs_held ON jobs (held) WHERE held;
    CREATE TABLE job_events (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        time REAL NOT NULL,
        job TEXT NOT NULL,
        event TEXT NOT NULL,
        data TEXT NOT NULL
    );
    """,
)


def open_database(path: Path) -> sqlite3.Connection:
    """A connection that any thread may use (one at a time), with the tables as this version wants them."""
    db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    try:
        db.row_factory = sqlite3.Row
        _use_wal(db)
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("BEGIN IMMEDIATE")
        _migrate(db, path)
        db.execute("COMMIT")
    except BaseException:
        db.close()
        raise
    return db


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    """Other parts of the studio may keep their tables in the same file: each has its own version."""
    db.execute("CREATE TABLE IF NOT EXISTS schema_versions (part TEXT PRIMARY KEY, version INTEGER NOT NULL)")
    row = db.execute("SELECT version FROM schema_versions WHERE part = 'jobs'").fetchone()
    found = row[0] if row else 0
    if found > len(_SCHEMA):
        raise StoreTooNew(path=path, found=found, known=len(_SCHEMA))
    for script in _SCHEMA[found:]:
        for statement in script.split(";"):
            db.execute(statement)
    db.execute("INSERT OR REPLACE INTO schema_versions VALUES ('jobs', ?)", (len(_SCHEMA),))


def _use_wal(db: sqlite3.Connection) -> None:
    """The switch needs the file alone for a moment, and SQLite's busy timeout does not cover it."""
    deadline = time.monotonic() + 10
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
