"""One dataset's store: its tables, and what the user did to them as an event log with undo and redo across restarts.

The user writes *decisions* (this tag yes, this tag no), makes caption versions current, and moves thresholds and rules.
Every such change is an event with the values before and after. What a caption says is a view over all this (view.py,
captions.py); nothing here formats text.
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from engine.dataset.database import parts
from engine.dataset.records import GENERAL, USER, CaptionVersion, Changes, Decision, Event, Mark, Policy, Reading
from engine.dataset.tables import Tables

_READINGS = "SELECT picture, terms, scores FROM readings WHERE source=?"


class Store(Tables):
    """The rows of one dataset, and every edit of them. Methods are safe to call from any thread."""

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

    def grow(self, event: Event | None, title: str, make: Callable[[], Changes]) -> Event | None:
        """As `edit`, but part of `event` where that is the newest edit: a long run is one entry of the undo list."""
        with self.writing():
            changes = make()
            newest = self.rows("SELECT seq, state, changes FROM events ORDER BY seq DESC LIMIT 1")
            if not changes or event is None or not newest or newest[0][:2] != (event.seq, "done"):
                return self.edit(title, lambda: changes) or event
            self._apply(changes, after=True)
            before = json.loads(zlib.decompress(newest[0][2]))
            whole = {name: [*before.get(name, ()), *rows] for name, rows in vars(changes).items()}
            packed = zlib.compress(json.dumps(whole).encode(), 1)
            self._db.execute("UPDATE events SET changes=? WHERE seq=?", (packed, event.seq))
            self._set_meta("edited", self.revision())
            return event

    def undo(self) -> Event | None:
        """Take the newest edit back. None when there is nothing to undo."""
        return self._step("done", "undone", "DESC", after=False)

    def redo(self) -> Event | None:
        """Apply the edit undone last again. None when there is none."""
        return self._step("undone", "done", "ASC", after=True)

    def travel(self, seq: int) -> Event | None:
        """Undo or redo until the event `seq` is the newest that is done; 0 undoes all. Returns the last step."""
        step: Event | None = None
        with self.writing():
            while (newest := next((e for e in self.events(limit=-1) if e.state == "done"), None)) or seq:
                at = newest.seq if newest else 0
                moved = self.undo() if at > seq else self.redo() if at < seq else None
                if moved is None:
                    break
                step = moved
        return step

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

    def import_readings(self, source: int, readings: Mapping[int, Reading], title: str) -> Event | None:
        """Tags that somebody took in from a file, as one event; what a tool reads is no edit, see `add_readings`."""

        def make() -> Changes:
            changes = Changes()
            before = {p: _packed(t, s) for p, t, s in self.rows(_READINGS, source)}
            self.add_readings(source, readings)
            for picture, terms, scores in self.rows(_READINGS, source):
                if picture in readings and (after := _packed(terms, scores)) != before.get(picture):
                    changes.readings.append((picture, source, before.get(picture), after))
            return changes

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

    def restore_captions(self, moment: float, title: str) -> Event | None:
        """Make the captions current that were so at a unix time; none where there was none yet."""

        def make() -> Changes:
            now, then = dict(self.rows("SELECT id, caption FROM pictures")), {}
            later = "SELECT changes FROM events WHERE state='done' AND time>? ORDER BY seq DESC"
            for (packed,) in self.rows(later, moment):
                for picture, before, _ in json.loads(zlib.decompress(packed)).get("captions", ()):
                    then[picture] = before
            return Changes(captions=[(id, now[id], version) for id, version in then.items() if now[id] != version])

        return self.edit(title, make)

    def adopt_captions(self, source: int, title: str, pictures: Iterable[int] | None = None) -> Event | None:
        """Make the newest caption of a source current, in the pictures it described, or in those of `pictures`."""

        def make() -> Changes:
            newest, wanted = self.newest_captions(source), None if pictures is None else set(pictures)
            now = dict(self.rows("SELECT id, caption FROM pictures"))
            rows = [(p, now[p], id) for p, (id, _) in newest.items() if wanted is None or p in wanted]
            return Changes(captions=[row for row in rows if row[1] != row[2]])

        return self.edit(title, make)

    def set_policy(self, source: int, policy: Policy, title: str) -> Event | None:
        def make() -> Changes:
            before = json.loads(self.rows("SELECT policy FROM sources WHERE id=?", source)[0][0])
            after = policy.to_json()
            return Changes(policies=[(source, before, after)] if before != after else [])

        return self.edit(title, make)

    def set_merge(self, merge: Mapping[str, Any], policies: Mapping[int, Policy], title: str) -> Event | None:
        """How sources are merged, with the policies of those whose part in it changes; as one event."""

        def make() -> Changes:
            before = self.meta("merge")
            changes = Changes(meta=[("merge", before, dict(merge))] if before != dict(merge) else [])
            for source, policy in policies.items():
                was = json.loads(self.rows("SELECT policy FROM sources WHERE id=?", source)[0][0])
                if was != policy.to_json():
                    changes.policies.append((source, was, policy.to_json()))
            return changes

        return self.edit(title, make)

    def change_meta(self, key: str, value: Any, title: str) -> Event | None:
        """A setting of the dataset that the user edits, such as the caption rules."""

        def make() -> Changes:
            before = self.meta(key)
            return Changes(meta=[(key, before, value)] if before != value else [])

        return self.edit(title, make)

    def remove_pictures(self, ids: Iterable[int], title: str) -> Event | None:
        """Take pictures out of the dataset. Their files stay where they are."""
        return self._set_removed(ids, 1, title)

    def return_pictures(self, ids: Iterable[int], title: str) -> Event | None:
        """Take pictures that were removed in again."""
        return self._set_removed(ids, 0, title)

    def mark(self, kind: Mark, values: Mapping[int, Any], title: str) -> Event | None:
        """Draw on pictures: a value by picture id, None to take it away. As one event."""

        def make() -> Changes:
            before = self.marks(kind)
            rows = [(picture, kind, before.get(picture), value) for picture, value in values.items()]
            return Changes(marks=[row for row in rows if row[2] != row[3]])

        return self.edit(title, make)

    def vote(self, one: int, other: int, better: int | None, title: str) -> Event | None:
        """Which of two caption versions is better: its id, 0 for neither, None to take the vote back."""
        first, second = sorted((one, other))
        if first == second or better not in (first, second, 0, None):
            raise ValueError(f"a vote between captions {one} and {other} can't be for {better}")

        def make() -> Changes:
            before = self.votes().get((first, second))
            return Changes(votes=[(first, second, before, better)] if before != better else [])

        return self.edit(title, make)

    def _set_removed(self, ids: Iterable[int], value: int, title: str) -> Event | None:
        wanted = list(dict.fromkeys(ids))

        def make() -> Changes:
            rows = [r for i in wanted for r in self.rows("SELECT id, removed FROM pictures WHERE id=?", i)]
            return Changes(removed=[(i, removed, value) for i, removed in rows if removed != value])

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
        self._db.executemany(
            "INSERT OR REPLACE INTO marks (picture, kind, value, revision) VALUES (?,?,?,?)",
            [(row[0], row[1], json.dumps(row[side]), revision) for row in changes.marks],
        )
        self._db.executemany(
            "INSERT OR REPLACE INTO votes (first, second, better, time) VALUES (?,?,?,?)",
            [(row[0], row[1], row[side], now) for row in changes.votes],
        )
        for row in changes.meta:
            self._set_meta(row[0], row[side])
        self._db.executemany(
            "INSERT OR REPLACE INTO readings (picture, source, terms, scores, cuts, created, revision) "
            "VALUES (?,?,?,?,'{}',?,?)",
            [(row[0], row[1], *_unpacked(row[side]), now, revision) for row in changes.readings],
        )
        for picture, source, place, region in changes.regions if after else changes.regions[::-1]:
            self._move_region(picture, source, place, region, taken=after)

    def _move_region(self, picture: int, source: int, place: int, region: Any, *, taken: bool) -> None:
        """Take one region away or put it back; what a model found there since stays as it is."""
        found = self.rows("SELECT regions FROM regions WHERE picture=? AND source=?", picture, source)
        regions: list[Any] = json.loads(found[0][0]) if found else []
        if taken == (region not in regions):
            return
        if taken:
            regions.remove(region)
        else:
            regions.insert(place, region)
        self._db.execute(
            "INSERT OR REPLACE INTO regions (picture, source, regions, created, revision) VALUES (?,?,?,?,?)",
            (picture, source, json.dumps(regions, ensure_ascii=False), time.time(), self.revision()),
        )

    def _decisions(self, pictures: set[int]) -> dict[tuple[int, int], int]:
        found: dict[tuple[int, int], int] = {}
        for part in parts(sorted(pictures)):
            marks = ",".join("?" * len(part))
            rows = self.rows(f"SELECT picture, term, state FROM decisions WHERE picture IN ({marks})", *part)
            found.update({(p, t): s for p, t, s in rows})
        return found


def _packed(terms: bytes, scores: bytes) -> list[str]:
    """A reading as an event keeps it."""
    return [base64.b64encode(values).decode() for values in (terms, scores)]


def _unpacked(kept: Any) -> list[bytes]:
    return [base64.b64decode(values) for values in kept or ("", "")]
