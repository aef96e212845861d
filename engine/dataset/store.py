"""One dataset's SQLite file: pictures by content, what tools read in them, what the user decided, and the event log.

Tools write *readings*: all tags of one picture with their scores, also those far below any threshold, so that
thresholds move afterwards without running anything again. The user writes *decisions* (this tag yes, this tag no) and
caption versions. What a caption says is a view over these (view.py, captions.py); nothing here formats text.

Every change a person makes is an event with the values before and after: undo and redo work across restarts.
A reading is one row with two arrays, not a row per tag: 100,000 pictures stay a small table.
It is used from several threads and processes: WAL, one connection per object, one lock around it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engine.errors import FileError, NotFound

Decision = Literal[1, 0, -1]  # yes, none, no
USER = "user"
GENERAL = "general"
RATING = "rating"

SCHEMA_VERSION = 1
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
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, title TEXT NOT NULL, state TEXT NOT NULL,
    changes BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS pictures_revision ON pictures (revision);
CREATE INDEX IF NOT EXISTS files_picture ON files (picture);
CREATE INDEX IF NOT EXISTS readings_revision ON readings (revision);
CREATE INDEX IF NOT EXISTS decisions_revision ON decisions (revision);
CREATE INDEX IF NOT EXISTS captions_picture ON captions (picture);
"""


class DatasetFromTheFuture(FileError):
    en = "{path} was written by a newer Easel (format {found}, this one reads {known}). Update Easel."
    zh = "{path} 由更新版本的 Easel 写入（格式 {found}，当前版本支持 {known}）。请更新 Easel。"


class DatasetDamaged(FileError):
    en = (
        "{path} can't be read as a dataset: {reason}. Restore it from a backup, or delete it to start the dataset anew."
    )
    zh = "无法将 {path} 作为数据集读取：{reason}。请从备份恢复，或删除它以重新建立数据集。"


@dataclass(frozen=True)
class Picture:
    """A picture by what it shows. `paths` are the files with this very content, relative to the dataset's pictures."""

    id: int
    hash: str
    width: int
    height: int
    mode: str
    format: str
    bytes: int
    added: float
    paths: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        return self.paths[0] if self.paths else ""

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class FileRow:
    """One file as the last scan saw it. `problem` is an error as JSON; `sidecar` the hash of the sidecar we know."""

    path: str
    picture: int | None
    size: int
    mtime_ns: int
    problem: dict[str, Any] | None = None
    sidecar: str | None = None


@dataclass(frozen=True)
class Policy:
    """Which of a source's tags count: score > threshold of the category, or of the tag itself. All may move later.

    `mcut` lists categories cut where the scores fall most (the value was kept with each reading).
    """

    thresholds: Mapping[str, float] = field(default_factory=dict)
    per_tag: Mapping[str, float] = field(default_factory=dict)
    mcut: tuple[str, ...] = ()
    enabled: bool = True
    weight: float = 1.0

    def to_json(self) -> dict[str, Any]:
        return {
            "thresholds": dict(self.thresholds),
            "per_tag": dict(self.per_tag),
            "mcut": list(self.mcut),
            "enabled": self.enabled,
            "weight": self.weight,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Policy:
        return Policy(data["thresholds"], data["per_tag"], tuple(data["mcut"]), data["enabled"], data["weight"])


@dataclass(frozen=True)
class Source:
    """Who wrote: a tool with the version of its model and the settings that change what it reads; or the user."""

    id: int
    tool: str
    version: str
    settings_hash: str
    settings: dict[str, Any]
    policy: Policy
    created: float


@dataclass(frozen=True)
class Reading:
    """What one source read in one picture. `cuts` are MCut thresholds by category."""

    tags: Sequence[tuple[str, str, float]]  # name, category, score
    cuts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CaptionVersion:
    id: int
    picture: int
    source: int
    tool: str
    text: str
    created: float
    current: bool


@dataclass(frozen=True)
class Event:
    seq: int
    time: float
    title: str
    state: Literal["done", "undone"]


@dataclass
class Changes:
    """What an event changes, with the value before and after, as rows. This is what undo and redo apply."""

    decisions: list[tuple[int, int, int, int]] = field(default_factory=list)  # picture, term, before, after
    captions: list[tuple[int, int | None, int | None]] = field(default_factory=list)  # picture, before, after
    policies: list[tuple[int, Any, Any]] = field(default_factory=list)  # source, before, after
    meta: list[tuple[str, Any, Any]] = field(default_factory=list)  # key, before, after
    removed: list[tuple[int, int, int]] = field(default_factory=list)  # picture, before, after

    @property
    def pictures(self) -> set[int]:
        return {row[0] for row in (*self.decisions, *self.captions, *self.removed)}

    def __bool__(self) -> bool:
        return any((self.decisions, self.captions, self.policies, self.meta, self.removed))


class Store:
    """The rows of one dataset. Methods are safe to call from any thread."""

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

    def __enter__(self) -> Store:
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

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

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

    # pictures and files

    def add_picture(self, hash: str, *, width: int, height: int, mode: str, format: str, bytes: int) -> int:
        """The id of the picture with this content; known content keeps its id and with it its annotations."""
        with self.writing() as revision:
            self._db.execute(
                "INSERT INTO pictures (hash, width, height, mode, format, bytes, added, revision) "
                "VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (hash) DO UPDATE SET revision=excluded.revision",
                (hash, width, height, mode, format, bytes, time.time(), revision),
            )
            return self.rows("SELECT id FROM pictures WHERE hash=?", hash)[0][0]

    def put_file(self, path: str, picture: int | None, size: int, mtime_ns: int, problem: dict | None = None) -> None:
        with self.writing() as revision:
            self._db.execute(
                "INSERT INTO files (path, picture, size, mtime_ns, problem, revision) VALUES (?,?,?,?,?,?) "
                "ON CONFLICT (path) DO UPDATE SET picture=excluded.picture, size=excluded.size, "
                "mtime_ns=excluded.mtime_ns, problem=excluded.problem, revision=excluded.revision",
                (path, picture, size, mtime_ns, json.dumps(problem) if problem else None, revision),
            )
            self._touch([picture])

    def forget_files(self, paths: Iterable[str]) -> None:
        """The files are gone. Their pictures keep what is known of them, for when they come back under any name."""
        with self.writing():
            for path in paths:
                self._touch(row[0] for row in self.rows("SELECT picture FROM files WHERE path=?", path))
                self._db.execute("DELETE FROM files WHERE path=?", (path,))

    def set_problem(self, path: str, problem: dict[str, Any] | None) -> None:
        with self.writing() as revision:
            words = json.dumps(problem) if problem else None
            self._db.execute("UPDATE files SET problem=?, revision=? WHERE path=?", (words, revision, path))

    def set_sidecar(self, path: str, content_hash: str | None) -> None:
        with self.writing():
            self._db.execute("UPDATE files SET sidecar=? WHERE path=?", (content_hash, path))

    def files(self) -> dict[str, FileRow]:
        found = self.rows("SELECT path, picture, size, mtime_ns, problem, sidecar FROM files ORDER BY path")
        return {r[0]: FileRow(r[0], r[1], r[2], r[3], json.loads(r[4]) if r[4] else None, r[5]) for r in found}

    def problems(self) -> list[FileRow]:
        return [row for row in self.files().values() if row.problem]

    def pictures(self, ids: Iterable[int] | None = None) -> list[Picture]:
        """Pictures that have a file and were not removed, by path; or those of `ids`, in that order, in any state."""
        columns = "p.id, p.hash, p.width, p.height, p.mode, p.format, p.bytes, p.added"
        if ids is not None:
            wanted = list(ids)
            by_id: dict[int, Picture] = {}
            for part in _parts(sorted(set(wanted))):
                marks = ",".join("?" * len(part))
                paths = self._paths(f"WHERE picture IN ({marks})", part)
                for row in self.rows(f"SELECT {columns} FROM pictures p WHERE p.id IN ({marks})", *part):
                    by_id[row[0]] = Picture(*row, paths=paths.get(row[0], ()))
            return [by_id[i] for i in wanted if i in by_id]
        paths = self._paths("WHERE picture IS NOT NULL", ())
        found = {r[0]: r for r in self.rows(f"SELECT {columns} FROM pictures p WHERE p.removed=0")}
        return [Picture(*found[i], paths=names) for i, names in paths.items() if i in found]

    def picture(self, id: int) -> Picture:
        found = self.pictures([id])
        if not found:
            raise NotFound(what="picture", name=id, remedy="Scan the dataset again.")
        return found[0]

    def measures(self) -> dict[int, dict[str, Any]]:
        """What was measured once for each content (pHash, sharpness ...), by picture id."""
        return {i: json.loads(m) for i, m in self.rows("SELECT id, measures FROM pictures WHERE measures IS NOT NULL")}

    def set_measures(self, values: Mapping[int, Mapping[str, Any]]) -> None:
        with self.writing() as revision:
            self._db.executemany(
                "UPDATE pictures SET measures=?, revision=? WHERE id=?",
                [(json.dumps(dict(m)), revision, i) for i, m in values.items()],
            )

    # terms, sources, readings

    def term_ids(self, names: Mapping[str, str]) -> dict[str, int]:
        """Ids of tags by canonical name, made where new. `names` maps a name to its category.

        A category that a tool knows replaces the `general` that a tag typed by hand started with.
        """
        with self.writing():
            self._db.executemany(
                "INSERT INTO terms (name, category) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET category="
                f"CASE WHEN category='{GENERAL}' THEN excluded.category ELSE category END "
                f"WHERE category='{GENERAL}' AND excluded.category<>'{GENERAL}'",
                list(names.items()),
            )
            return self.find_terms(names)

    def find_terms(self, names: Iterable[str]) -> dict[str, int]:
        """Ids of those of `names` that are known."""
        found: dict[str, int] = {}
        for part in _parts(list(names)):
            found.update(self.rows(f"SELECT name, id FROM terms WHERE name IN ({','.join('?' * len(part))})", *part))
        return found

    def terms(self) -> dict[int, tuple[str, str]]:
        """{id: (name, category)}."""
        return {i: (name, category) for i, name, category in self.rows("SELECT id, name, category FROM terms")}

    def source(
        self, tool: str, version: str = "", settings: Mapping[str, Any] | None = None, policy: Policy | None = None
    ) -> Source:
        """The source with this tool, model version and settings; made where new, with `policy` or one admitting all."""
        text = json.dumps(dict(settings or {}), sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        with self.writing() as revision:
            self._db.execute(
                "INSERT OR IGNORE INTO sources (tool, version, settings_hash, settings, policy, created, revision) "
                "VALUES (?,?,?,?,?,?,?)",
                (tool, version, digest, text, json.dumps((policy or Policy()).to_json()), time.time(), revision),
            )
            return next(s for s in self.sources() if (s.tool, s.version, s.settings_hash) == (tool, version, digest))

    def sources(self) -> list[Source]:
        found = self.rows("SELECT id, tool, version, settings_hash, settings, policy, created FROM sources ORDER BY id")
        return [
            Source(id, tool, version, digest, json.loads(settings), Policy.from_json(json.loads(policy)), created)
            for id, tool, version, digest, settings, policy, created in found
        ]

    def add_readings(self, source: int, readings: Mapping[int, Reading]) -> None:
        """Readings by picture id, in one transaction. A reading replaces the one that this source made before."""
        with self.writing() as revision:
            ids = self.term_ids({name: category for r in readings.values() for name, category, _ in r.tags})
            now = time.time()
            for picture, reading in readings.items():
                terms = np.array([ids[name] for name, _, _ in reading.tags], "<u4").tobytes()
                scores = np.array([score for _, _, score in reading.tags], "<f4").tobytes()
                self._db.execute(
                    "INSERT OR REPLACE INTO readings (picture, source, terms, scores, cuts, created, revision) "
                    "VALUES (?,?,?,?,?,?,?)",
                    (picture, source, terms, scores, json.dumps(dict(reading.cuts)), now, revision),
                )

    def read_by(self, source: int) -> set[int]:
        """Pictures that a source has read already: what a resumed run skips."""
        return {row[0] for row in self.rows("SELECT picture FROM readings WHERE source=?", source)}

    def readings_of(self, picture: int) -> dict[int, tuple[np.ndarray, np.ndarray, float]]:
        """{source: (terms, scores, time)} of one picture."""
        found = self.rows("SELECT source, terms, scores, created FROM readings WHERE picture=?", picture)
        return {s: (np.frombuffer(t, "<u4"), np.frombuffer(v, "<f4"), made) for s, t, v, made in found}

    # captions

    def add_caption(self, picture: int, source: int, text: str) -> int:
        """A version of a picture's caption. It counts only once an edit makes it the current one."""
        with self.writing():
            cursor = self._db.execute(
                "INSERT INTO captions (picture, source, text, created) VALUES (?,?,?,?)",
                (picture, source, text, time.time()),
            )
            return int(cursor.lastrowid or 0)

    def caption_versions(self, picture: int) -> list[CaptionVersion]:
        """Newest first."""
        found = self.rows(
            "SELECT c.id, c.picture, c.source, s.tool, c.text, c.created, c.id IS p.caption FROM captions c "
            "JOIN sources s ON s.id=c.source JOIN pictures p ON p.id=c.picture WHERE c.picture=? ORDER BY c.id DESC",
            picture,
        )
        return [CaptionVersion(*row[:6], current=bool(row[6])) for row in found]

    # edits: every one an event

    def edit(self, title: str, make: Callable[[], Changes]) -> Event | None:
        """Apply the changes that `make` works out inside the transaction, as one event. None when nothing changes.

        What was undone before can't be redone any more.
        """
        with self.writing() as revision:
            changes = make()
            if not changes:
                return None
            self._apply(changes, after=True)
            self._db.execute("DELETE FROM events WHERE state='undone'")
            packed = zlib.compress(json.dumps(vars(changes)).encode(), 1)
            now = time.time()
            cursor = self._db.execute(
                "INSERT INTO events (time, title, state, changes) VALUES (?,?,'done',?)", (now, title, packed)
            )
            self._set_meta("edited", revision)
            return Event(int(cursor.lastrowid or 0), now, title, "done")

    def undo(self) -> Event | None:
        """Take the newest edit back. None when there is nothing to undo."""
        return self._step("done", "undone", "DESC", after=False)

    def redo(self) -> Event | None:
        """Apply the edit undone last again. None when there is none."""
        return self._step("undone", "done", "ASC", after=True)

    def events(self, limit: int = 100) -> list[Event]:
        """Newest first."""
        return [
            Event(*r) for r in self.rows("SELECT seq, time, title, state FROM events ORDER BY seq DESC LIMIT ?", limit)
        ]

    def decide(self, wanted: Iterable[tuple[int, str, Decision]], title: str, category: str = GENERAL) -> Event | None:
        """Decisions (picture, canonical tag, yes / none / no) as one event."""
        rows = list(wanted)

        def make() -> Changes:
            ids = self.term_ids({name: category for _, name, _ in rows})
            before = self._decisions({picture for picture, _, _ in rows})
            latest = {(picture, ids[name]): state for picture, name, state in rows}
            changed = [(p, t, before.get((p, t), 0), s) for (p, t), s in latest.items() if before.get((p, t), 0) != s]
            return Changes(decisions=changed)

        return self.edit(title, make)

    def write_captions(self, texts: Mapping[int, str], title: str, tool: str = USER, **source: Any) -> Event | None:
        """New current captions by picture id, as one event. Old versions stay."""

        def make() -> Changes:
            who = self.source(tool, **source).id
            changes = Changes()
            for picture, text in texts.items():
                now = self.current_caption(picture)
                if now is None or now.text != text:
                    changes.captions.append((picture, now.id if now else None, self.add_caption(picture, who, text)))
            return changes

        return self.edit(title, make)

    def current_caption(self, picture: int) -> CaptionVersion | None:
        return next((v for v in self.caption_versions(picture) if v.current), None)

    def restore_caption(self, version: CaptionVersion, title: str) -> Event | None:
        """Make an older version the current one."""

        def make() -> Changes:
            now = self.current_caption(version.picture)
            if now and now.id == version.id:
                return Changes()
            return Changes(captions=[(version.picture, now.id if now else None, version.id)])

        return self.edit(title, make)

    def set_policy(self, source: int, policy: Policy, title: str) -> Event | None:
        def make() -> Changes:
            before = json.loads(self.rows("SELECT policy FROM sources WHERE id=?", source)[0][0])
            after = policy.to_json()
            return Changes(policies=[(source, before, after)] if before != after else [])

        return self.edit(title, make)

    def change_meta(self, key: str, value: Any, title: str) -> Event | None:
        """A setting of the dataset that the user edits, such as the caption rules."""

        def make() -> Changes:
            before = self.meta(key)
            return Changes(meta=[(key, before, value)] if before != value else [])

        return self.edit(title, make)

    def remove_pictures(self, ids: Iterable[int], title: str) -> Event | None:
        """Take pictures out of the dataset. Their files stay where they are."""
        wanted = list(dict.fromkeys(ids))

        def make() -> Changes:
            rows = [r for i in wanted for r in self.rows("SELECT id, removed FROM pictures WHERE id=?", i)]
            return Changes(removed=[(i, removed, 1) for i, removed in rows if not removed])

        return self.edit(title, make)

    def _step(self, old: str, new: str, order: str, *, after: bool) -> Event | None:
        with self.writing() as revision:
            found = self.rows(
                f"SELECT seq, time, title, changes FROM events WHERE state=? ORDER BY seq {order} LIMIT 1", old
            )
            if not found:
                return None
            seq, when, title, packed = found[0]
            self._apply(Changes(**json.loads(zlib.decompress(packed))), after=after)
            self._db.execute("UPDATE events SET state=? WHERE seq=?", (new, seq))
            self._set_meta("edited", revision)
            return Event(seq, when, title, "done" if after else "undone")

    def _apply(self, changes: Changes, *, after: bool) -> None:
        side, revision, now = (-1 if after else -2), self.revision(), time.time()
        self._db.executemany(
            # the time stays that of the first decision: it is the order of the user's own tags
            "INSERT INTO decisions (picture, term, state, time, revision) VALUES (?,?,?,?,?) "
            "ON CONFLICT (picture, term) DO UPDATE SET state=excluded.state, revision=excluded.revision",
            [(row[0], row[1], row[side], now, revision) for row in changes.decisions],
        )
        self._db.executemany(
            "UPDATE pictures SET caption=?, revision=? WHERE id=?",
            [(row[side], revision, row[0]) for row in changes.captions],
        )
        self._db.executemany(
            "UPDATE pictures SET removed=?, revision=? WHERE id=?",
            [(row[side], revision, row[0]) for row in changes.removed],
        )
        self._db.executemany(
            "UPDATE sources SET policy=?, revision=? WHERE id=?",
            [(json.dumps(row[side]), revision, row[0]) for row in changes.policies],
        )
        for row in changes.meta:
            self._set_meta(row[0], row[side])

    def _decisions(self, pictures: set[int]) -> dict[tuple[int, int], int]:
        found: dict[tuple[int, int], int] = {}
        for part in _parts(sorted(pictures)):
            marks = ",".join("?" * len(part))
            rows = self.rows(f"SELECT picture, term, state FROM decisions WHERE picture IN ({marks})", *part)
            found.update({(p, t): s for p, t, s in rows})
        return found

    def _paths(self, where: str, values: Sequence[Any]) -> dict[int, tuple[str, ...]]:
        names: dict[int, list[str]] = {}
        for path, picture in self.rows(f"SELECT path, picture FROM files {where} ORDER BY path", *values):
            names.setdefault(picture, []).append(path)
        return {picture: tuple(paths) for picture, paths in names.items()}

    def _touch(self, pictures: Iterable[int | None]) -> None:
        revision = self.revision()
        self._db.executemany(
            "UPDATE pictures SET revision=? WHERE id=?", [(revision, p) for p in pictures if p is not None]
        )

    def _set_meta(self, key: str, value: Any) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, json.dumps(value)))


def _parts(values: list[Any], size: int = 900) -> Iterator[list[Any]]:
    """SQLite takes a limited number of values in one statement."""
    for start in range(0, len(values), size):
        yield values[start : start + size]
