"""The job store: every job, its state and its history, in one SQLite file that many threads and processes may use.

WAL with synchronous=NORMAL: what was written survives any kill of our processes, though the last moments may be lost in
a power cut. It knows no processes: what a person asks of a job that the worker holds is kept as a *wish* until the
supervisor reports that it was done. Every change of state is an event with a sequence number, so that two browsers and
the command line see the same.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import DiskFull
from engine.jobs.errors import (
    CannotMove,
    CannotPause,
    DuplicateJob,
    StoreBroken,
    StudioStopped,
    TooManyAttempts,
    UnknownJob,
    WrongState,
)
from engine.jobs.schema import open_database
from engine.jobs.types import Job, JobSpec, JobState, Priority
from engine.progress import Progress

_EVENTS_KEPT = 50_000
_SETTINGS_KEPT = 8 * 2**20  # letters of settings that are kept parsed
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobEvent:
    """`event` is the state that was entered, or "wish", "moved", "deleted"."""

    seq: int
    time: float
    job_id: str
    event: str
    data: dict[str, Any]


class JobStore:
    """All methods may be called from any thread. Errors: engine/jobs/errors.py, DiskFull.

    A job that was running when its worker died is started at most `max_attempts` times, where an attempt that lasted
    `forgive_after` seconds or longer does not count: that is no crash loop.
    """

    def __init__(self, path: Path, *, max_attempts: int = 2, forgive_after: float = 600.0) -> None:
        self.path = Path(path)
        self._max_attempts = max_attempts
        self._forgive_after = forgive_after
        self._lock = threading.RLock()
        self._listeners: list[Callable[[], None]] = []
        self._parsed: OrderedDict[int, tuple[dict[str, Any], int]] = OrderedDict()  # by row: settings, length as text
        self._parsed_size = 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._db = self._open()

    # ---- asking ----

    def get(self, job_id: str) -> Job:
        return self._one(self._rows("SELECT * FROM jobs WHERE id = ?", (job_id,)), job_id)

    def list(
        self,
        states: Collection[str] | None = None,
        kinds: Collection[str] | None = None,
        limit: int = 100,
        offset: int = 0,
        newest_first: bool = True,
        *,
        settings: Mapping[str, str] | None = None,
        longest_first: bool | None = None,
        users: Collection[str] | None = None,
    ) -> list[Job]:
        """By time of creation; by how long they ran, where `longest_first` is said. What runs next is `in_line`.

        `settings`: {JSON path in a job's settings: text}, e.g. {"$.dataset": "cats"}; all must be equal.
        """
        where, values = _where(settings, state=states, kind=kinds, user=users)
        order = f"seq {'DESC' if newest_first else 'ASC'}"
        if longest_first is not None:
            lasted = "coalesce(finished, started, 0) - coalesce(started, 0)"
            order = f"{lasted} {'DESC' if longest_first else 'ASC'}, {order}"
        query = f"SELECT * FROM jobs {where} ORDER BY {order} LIMIT ? OFFSET ?"
        return [self._job(row) for row in self._rows(query, (*values, limit, offset))]

    def count(
        self,
        states: Collection[str] | None = None,
        kinds: Collection[str] | None = None,
        settings: Mapping[str, str] | None = None,
        users: Collection[str] | None = None,
    ) -> int:
        where, values = _where(settings, state=states, kind=kinds, user=users)
        return self._rows(f"SELECT count(*) FROM jobs {where}", values)[0][0]

    def in_line(
        self, kinds: Collection[str] | None = None, limit: int = 1000, users: Collection[str] | None = None
    ) -> list[Job]:
        """Queued jobs in the order in which they will run."""
        where, values = _where(state=[JobState.queued], kind=kinds, user=users)
        query = f"SELECT * FROM jobs {where} ORDER BY priority, position, seq LIMIT ?"
        return [self._job(row) for row in self._rows(query, (*values, limit))]

    def next_job(self, kinds: Collection[str] | None = None, above: int | None = None) -> Job | None:
        """The first in line; with `above`, only one that is more urgent than this priority."""
        where, values = _where(state=[JobState.queued], kind=kinds)
        if above is not None:
            where, values = f"{where} AND priority < ?", (*values, above)
        query = f"SELECT * FROM jobs {where} ORDER BY priority, position, seq LIMIT 1"
        rows = self._rows(query, values)
        return self._job(rows[0]) if rows else None

    def held(self) -> list[Job]:
        """What the worker has, the outermost first."""
        return [self._job(row) for row in self._rows("SELECT * FROM jobs WHERE held ORDER BY started, seq", ())]

    def events_since(self, seq: int, limit: int = 1000) -> list[JobEvent]:
        query = "SELECT seq, time, job, event, data FROM job_events WHERE seq > ? ORDER BY seq LIMIT ?"
        return [JobEvent(row[0], row[1], row[2], row[3], json.loads(row[4])) for row in self._rows(query, (seq, limit))]

    def last_seq(self) -> int:
        return self._rows("SELECT coalesce(max(seq), 0) FROM job_events", ())[0][0]

    # ---- what people ask ----

    def submit(self, spec: JobSpec, front: bool = False) -> Job:
        """Put it in line: last of its priority, or first with `front`. Settings are checked in submit.py."""
        job_id = spec.id or str(uuid.uuid4())
        with self._transaction() as db:
            try:
                db.execute(
                    "INSERT INTO jobs (id, kind, settings, state, priority, position, title, user, client_id,"
                    " resumable, created) VALUES (?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?)",
                    (
                        job_id,
                        spec.kind,
                        _dump(spec.settings),
                        int(spec.priority),
                        _end_of_line(db, spec.priority, front),
                        spec.title,
                        spec.user,
                        spec.client_id,
                        int(spec.resumable),
                        time.time(),
                    ),
                )
            except sqlite3.IntegrityError:
                raise DuplicateJob(id=job_id) from None
            _record(db, job_id, JobState.queued, kind=spec.kind)
            return self._get(db, job_id)

    def cancel(self, job_id: str) -> Job:
        """At once where no worker has it, else as a wish that the worker follows at its next step."""
        return self._ask(job_id, "cancel")

    def pause(self, job_id: str) -> Job:
        """Hold a queued job back, or make a running one stop at its next checkpoint (only kinds that can resume)."""
        return self._ask(job_id, "pause")

    def resume(self, job_id: str) -> Job:
        return self._ask(job_id, "resume")

    def retry(self, job_id: str, front: bool = False) -> Job:
        """Queue a failed, cancelled or interrupted job again, under the same id, so that it finds what it had saved."""
        with self._transaction() as db:
            job = self._get(db, job_id)
            if job.state not in (JobState.failed, JobState.cancelled, JobState.interrupted):
                raise WrongState(id=job_id, state=job.state, action="retried")
            position = _end_of_line(db, job.priority, front)
            _change(db, job_id, JobState.queued, attempts=0, position=position, error=None, finished=None, wish="")
            return self._get(db, job_id)

    def move(self, job_id: str, before: str | None = None) -> Job:
        """Put a queued job before another one of its priority, or last of its priority."""
        with self._transaction() as db:
            job = self._get(db, job_id)
            if before is None:
                position = _end_of_line(db, job.priority)
            else:
                other = self._get(db, before)
                together = job.state == other.state == JobState.queued and job.priority == other.priority
                if not together or job_id == before:
                    raise CannotMove(id=job_id, before=before)
                position = _place_before(db, other, job_id)
            if job.state != JobState.queued:
                raise WrongState(id=job_id, state=job.state, action="moved")
            db.execute("UPDATE jobs SET position = ? WHERE id = ?", (position, job_id))
            _record(db, job_id, "moved")
            return self._get(db, job_id)

    def delete(self, job_id: str) -> None:
        """Forget a job that has ended. Its pictures and folders stay."""
        with self._transaction() as db:
            job = self._get(db, job_id)
            if not job.state.ended:
                raise WrongState(id=job_id, state=job.state, action="deleted")
            db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
            _record(db, job_id, "deleted")

    # ---- what the supervisor reports ----

    def start(self, job_id: str, host: str = "") -> Job:
        with self._transaction() as db:
            job = self._get(db, job_id)
            if job.state != JobState.queued:
                raise WrongState(id=job_id, state=job.state, action="started")
            fresh: dict[str, Any] = {} if job.resumable else {"progress": "{}", "result": None}
            times = {"attempts": job.attempts + 1, "started": time.time(), "finished": None}
            _change(db, job_id, JobState.running, **times, **fresh, error=None, wish="", held=1, host=host)
            return self._get(db, job_id)

    def finish(self, job_id: str, result: dict[str, Any] | None) -> Job:
        return self._end(job_id, JobState.done, result=_dump(result or {}), error=None)

    def fail(self, job_id: str, error: dict[str, Any], result: dict[str, Any] | None = None) -> Job:
        """`result` is what it had so far."""
        return self._end(job_id, JobState.failed, error=_dump(error), result=_dump(result) if result else None)

    def set_cancelled(self, job_id: str, result: dict[str, Any] | None = None) -> Job:
        return self._end(job_id, JobState.cancelled, result=_dump(result) if result else None)

    def set_paused(self, job_id: str, held: bool) -> Job:
        """It stopped at a checkpoint: inside it (held), or unwound, then the next start counts as the same attempt."""
        with self._transaction() as db:
            job = self._get(db, job_id)
            if held:
                _change(db, job_id, JobState.paused, wish=_without(job.wish, "pause"))
            elif job.wish == "cancel":
                _let_go(db, job_id, JobState.cancelled, finished=time.time())
            else:
                state = JobState.queued if job.wish == "resume" else JobState.paused
                _let_go(db, job_id, state, attempts=max(0, job.attempts - 1))
            return self._get(db, job_id)

    def set_resumed(self, job_id: str) -> Job:
        with self._transaction() as db:
            job = self._get(db, job_id)
            _change(db, job_id, JobState.running, wish=_without(job.wish, "resume"))
            return self._get(db, job_id)

    def put_back(self, job_id: str) -> Job:
        """It was unwound because the studio stops: queued where it was, and the attempt does not count."""
        with self._transaction() as db:
            job = self._get(db, job_id)
            _let_go(db, job_id, JobState.queued, attempts=max(0, job.attempts - 1))
            return self._get(db, job_id)

    def progress(self, job_id: str, progress: Progress) -> None:
        """No event and no listener: at ten a second this would be most of the log."""
        with self._transaction(quiet=True) as db:
            db.execute("UPDATE jobs SET progress = ? WHERE id = ?", (_dump(progress.to_json()), job_id))

    def recover(self) -> list[Job]:
        """At start, when no other studio has this store: put what was running into a truthful state."""
        with self._transaction(quiet=True) as db:
            db.execute("DELETE FROM job_events WHERE seq <= (SELECT max(seq) FROM job_events) - ?", (_EVENTS_KEPT,))
        return self.interrupt_held(StudioStopped().to_json())

    def interrupt_held(self, error: dict[str, Any], counts: bool = True) -> list[Job]:
        """The worker is gone: settle every job that it held. Returns them.

        The innermost one is to blame: it goes behind the queued ones of its priority, or fails after too many attempts;
        the jobs around it keep their place. What can't resume is left interrupted. `counts=False`: it was no crash.
        """
        with self._transaction() as db:
            jobs = [self._job(row) for row in db.execute("SELECT * FROM jobs WHERE held ORDER BY seq")]
            hosts = {job.host for job in jobs}
            for job in jobs:
                self._settle(db, job, error, to_blame=counts and job.id not in hosts)
            return [self._get(db, job.id) for job in jobs]

    # ---- being told ----

    def on_change(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call it after every change made through this object, in the changing thread. Returns what unsubscribes."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # ---- private ----

    def _ask(self, job_id: str, wish: str) -> Job:
        with self._transaction() as db:
            job = self._get(db, job_id)
            if job.state.ended:
                raise WrongState(id=job_id, state=job.state, action={"cancel": "cancelled"}.get(wish, f"{wish}d"))
            if job.held:
                if wish == "pause" and not job.resumable:
                    raise CannotPause(id=job_id, kind=job.kind)
                done_already = not job.wish and (job.state, wish) in _ALREADY
                if job.wish not in (wish, "cancel") and not done_already:
                    db.execute("UPDATE jobs SET wish = ? WHERE id = ?", (wish, job_id))
                    _record(db, job_id, "wish", wish=wish)
            elif wish == "cancel":
                _let_go(db, job_id, JobState.cancelled, finished=time.time())
            elif wish == "pause" and job.state == JobState.queued:
                _change(db, job_id, JobState.paused)
            elif wish == "resume" and job.state == JobState.paused:
                _change(db, job_id, JobState.queued)
            return self._get(db, job_id)

    def _end(self, job_id: str, state: JobState, **values: Any) -> Job:
        with self._transaction() as db:
            _let_go(db, job_id, state, finished=time.time(), **values)
            return self._get(db, job_id)

    def _settle(self, db: sqlite3.Connection, job: Job, error: dict[str, Any], to_blame: bool) -> None:
        now = time.time()
        if job.wish == "cancel":
            return _let_go(db, job.id, JobState.cancelled, finished=now)
        paused = job.state == JobState.paused and job.wish != "resume"
        if paused or (job.wish == "pause" and job.resumable):
            return _let_go(db, job.id, JobState.paused, attempts=max(0, job.attempts - 1))
        if not job.resumable:
            return _let_go(db, job.id, JobState.interrupted, finished=now, error=_dump(error))
        attempts = job.attempts if to_blame and job.state == JobState.running else max(0, job.attempts - 1)
        if now - (job.started or now) >= self._forgive_after:
            attempts = 0
        if to_blame and attempts >= self._max_attempts:
            final = TooManyAttempts(attempts=attempts, reason=error["en"]).to_json()
            return _let_go(
                db,
                job.id,
                JobState.failed,
                finished=now,
                error=_dump({**final, "traceback": error.get("traceback", "")}),
            )
        _let_go(db, job.id, JobState.interrupted, error=_dump(error))
        position = _end_of_line(db, job.priority) if to_blame else job.position
        _change(db, job.id, JobState.queued, attempts=attempts, position=position)

    def _rows(self, query: str, values: tuple[Any, ...]) -> list[sqlite3.Row]:
        with self._lock, self._translated():
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self, quiet: bool = False) -> Iterator[sqlite3.Connection]:
        with self._lock, self._translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                self._forget_settings()
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        if not quiet:
            for listener in tuple(self._listeners):
                listener()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.ProgrammingError, sqlite3.InterfaceError) as error:
            if "closed" not in str(error):
                raise  # a value that SQLite has no type for: the caller's mistake, the file is fine
            raise StoreBroken(path=self.path, reason=str(error)) from error
        except sqlite3.DatabaseError as error:
            if "full" in str(error):
                raise DiskFull(path=self.path, need=str(error)) from error
            raise StoreBroken(path=self.path, reason=str(error)) from error

    def _open(self) -> sqlite3.Connection:
        with self._translated():
            return open_database(self.path)

    def _get(self, db: sqlite3.Connection, job_id: str) -> Job:
        return self._one(db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchall(), job_id)

    def _one(self, rows: list[sqlite3.Row], job_id: str) -> Job:
        if not rows:
            raise UnknownJob(id=job_id)
        return self._job(rows[0])

    def _job(self, row: sqlite3.Row) -> Job:
        return _job(row, self._settings(row))

    def _settings(self, row: sqlite3.Row) -> dict[str, Any]:
        """They never change, may be megabytes, and are asked for many times on the way of a job."""
        with self._lock:
            text, found = row["settings"], self._parsed.get(row["seq"])
            if found is None:
                found = (json.loads(text), len(text))
                self._parsed[row["seq"]] = found
                self._parsed_size += len(text)
                while self._parsed_size > _SETTINGS_KEPT:
                    self._parsed_size -= self._parsed.popitem(last=False)[1][1]
            else:
                self._parsed.move_to_end(row["seq"])
            return found[0]

    def _forget_settings(self) -> None:
        """A number that was rolled back is given again, to other settings."""
        self._parsed.clear()
        self._parsed_size = 0


_ALREADY = ((JobState.paused, "pause"), (JobState.running, "resume"))


def _where(
    settings: Mapping[str, str] | None = None, **conditions: Collection[str] | None
) -> tuple[str, tuple[str, ...]]:
    parts, values = ["TRUE"], ()
    for path, text in (settings or {}).items():
        parts.append("json_extract(settings, ?) = ?")
        values += (path, text)
    for column, allowed in conditions.items():
        if allowed is not None:
            parts.append(f"{column} IN ({', '.join('?' * len(allowed))})")
            values += tuple(str(value) for value in allowed)
    return "WHERE " + " AND ".join(parts), values


def _change(db: sqlite3.Connection, job_id: str, state: JobState, **values: Any) -> None:
    columns = ", ".join(f"{name} = ?" for name in ("state", *values))
    db.execute(f"UPDATE jobs SET {columns} WHERE id = ?", (str(state), *values.values(), job_id))
    data = {"error": json.loads(values["error"])} if values.get("error") else {}
    _record(db, job_id, state, **data)


def _let_go(db: sqlite3.Connection, job_id: str, state: JobState, **values: Any) -> None:
    _change(db, job_id, state, wish="", held=0, host="", **values)


def _record(db: sqlite3.Connection, job_id: str, event: str, **data: Any) -> None:
    db.execute(
        "INSERT INTO job_events (time, job, event, data) VALUES (?, ?, ?, ?)",
        (time.time(), job_id, str(event), _dump(data)),
    )


def _end_of_line(db: sqlite3.Connection, priority: int, front: bool = False) -> float:
    edge, step = ("min", -1) if front else ("max", 1)
    states = "('queued', 'running', 'paused')"  # the last two may come back to the place they had
    query = f"SELECT {edge}(position) FROM jobs WHERE state IN {states} AND priority = ?"
    found = db.execute(query, (int(priority),)).fetchone()[0]
    return 0.0 if found is None else found + step


def _place_before(db: sqlite3.Connection, other: Job, moving: str) -> float:
    """A position between `other` and the one before it; renumbers the line when doubles have no room left there."""
    line = db.execute(
        "SELECT id, position FROM jobs WHERE state = 'queued' AND priority = ? AND id <> ? ORDER BY position, seq",
        (int(other.priority), moving),
    ).fetchall()
    place = [row["id"] for row in line].index(other.id)
    low = line[place - 1]["position"] if place else line[0]["position"] - 2
    high = line[place]["position"]
    if high - low > 1e-6:
        return (low + high) / 2
    for number, row in enumerate(line):
        db.execute("UPDATE jobs SET position = ? WHERE id = ?", (float(number), row["id"]))
    return place - 0.5


def _without(wish: str, done: str) -> str:
    return "" if wish == done else wish


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _job(row: sqlite3.Row, settings: dict[str, Any]) -> Job:
    return Job(
        id=row["id"],
        kind=row["kind"],
        settings=settings,
        state=JobState(row["state"]),
        priority=Priority(row["priority"]),
        position=row["position"],
        title=row["title"],
        user=row["user"],
        client_id=row["client_id"],
        attempts=row["attempts"],
        created=row["created"],
        started=row["started"],
        finished=row["finished"],
        progress=Progress(**json.loads(row["progress"])),
        result=json.loads(row["result"]) if row["result"] else None,
        error=json.loads(row["error"]) if row["error"] else None,
        resumable=bool(row["resumable"]),
        wish=row["wish"],
        held=bool(row["held"]),
        host=row["host"],
    )
