"""Pictures by content with their files, what every tool read in them, and the versions of their captions.

Tools write *readings*: all tags of one picture with their scores, also those far below any threshold, so that
thresholds move afterwards without running anything again. A reading is one row with two arrays, not a row per tag:
100,000 pictures stay a small table.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from engine.dataset.database import Database, parts
from engine.dataset.records import GENERAL, CaptionVersion, FileRow, Mark, Picture, Policy, Reading, Source
from engine.errors import NotFound


class Tables(Database):
    """The rows that are no edits of the user."""

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

    def files(self, where: str = "") -> dict[str, FileRow]:
        found = self.rows(f"SELECT path, picture, size, mtime_ns, problem, sidecar FROM files {where} ORDER BY path")
        return {r[0]: FileRow(r[0], r[1], r[2], r[3], json.loads(r[4]) if r[4] else None, r[5]) for r in found}

    def problems(self) -> list[FileRow]:
        return list(self.files("WHERE problem IS NOT NULL").values())

    def pictures(self, ids: Iterable[int] | None = None) -> list[Picture]:
        """Pictures that have a file and were not removed, by path; or those of `ids`, in that order, in any state."""
        columns = "p.id, p.hash, p.width, p.height, p.mode, p.format, p.bytes, p.added"
        if ids is not None:
            wanted = [id for id in ids if 0 <= id < 1 << 63]  # what SQLite has for numbers
            by_id: dict[int, Picture] = {}
            for part in parts(sorted(set(wanted))):
                marks = ",".join("?" * len(part))
                paths = self._paths(f"WHERE picture IN ({marks})", part)
                for row in self.rows(f"SELECT {columns} FROM pictures p WHERE p.id IN ({marks})", *part):
                    by_id[row[0]] = Picture(*row, paths=paths.get(row[0], ()))
            return [by_id[i] for i in wanted if i in by_id]
        paths = self._paths("WHERE picture IS NOT NULL", ())
        found = {r[0]: r for r in self.rows(f"SELECT {columns} FROM pictures p WHERE p.removed=0")}
        return [Picture(*found[i], paths=names) for i, names in paths.items() if i in found]

    def with_content(self, hash: str) -> Picture | None:
        """The picture with this content, removed ones included, when a file of it is there."""
        found = self.pictures(row[0] for row in self.rows("SELECT id FROM pictures WHERE hash=?", hash))
        return found[0] if found and found[0].paths else None

    def picture(self, id: int) -> Picture:
        found = self.pictures([id])
        if not found:
            raise NotFound(
                what="picture",
                what_zh="图片",
                name=id,
                remedy="Scan the dataset again.",
                remedy_zh="请重新扫描数据集。",
            )
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
        for part in parts(list(names)):
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

    # marks and captions

    def marks(self, kind: Mark, picture: int | None = None) -> dict[int, Any]:
        """{picture: value} of what a person drew, in all pictures or in one."""
        one, values = ("", ()) if picture is None else (" AND picture=?", (picture,))
        found = self.rows(f"SELECT picture, value FROM marks WHERE kind=? AND value<>'null'{one}", kind, *values)
        return {picture: json.loads(value) for picture, value in found}

    def marked(self, kind: Mark) -> set[int]:
        """Pictures on which something of this kind is drawn."""
        return {row[0] for row in self.rows("SELECT picture FROM marks WHERE kind=? AND value<>'null'", kind)}

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

    def newest_captions(self, source: int) -> dict[int, tuple[int, str]]:
        """{picture: (id of the version, text)} of the last that a source wrote for each picture."""
        found = self.rows("SELECT picture, MAX(id), text FROM captions WHERE source=? GROUP BY picture", source)
        return {picture: (id, text) for picture, id, text in found}

    def caption_sources(self) -> dict[int, int]:
        """{source: for how many pictures it wrote a caption}."""
        return dict(self.rows("SELECT source, COUNT(DISTINCT picture) FROM captions GROUP BY source ORDER BY source"))

    def votes(self) -> dict[tuple[int, int], int]:
        """{(lower caption id, higher caption id): the better one, 0 where neither is}."""
        found = self.rows("SELECT first, second, better FROM votes WHERE better IS NOT NULL")
        return {(first, second): better for first, second, better in found}

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
