"""A dataset as it counts now, in memory: readings cut by thresholds, merged over sources, then what the user decided.

It holds the readings as flat arrays, so that moving a threshold over 10,000 pictures or counting all tags takes
milliseconds, and refreshes itself with what any process wrote since. What is asked of it is in view.py.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from engine.dataset.arrays import Entries, Present, Words, agreed, flat, indexed, laid_over, over_thresholds, present
from engine.dataset.records import Picture, Source
from engine.dataset.store import Store

Made = TypeVar("Made")
MOST_KEPT = 8
_Raw = tuple[np.ndarray, np.ndarray, dict[str, float]]  # terms, scores, MCut thresholds


class State:
    """Pictures, captions and readings of one dataset, with what was worked out from them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = threading.RLock()
        self._revision = -1
        self._pictures: list[Picture] = []
        self._captions: list[str] = []
        self._measures: dict[int, dict[str, Any]] = {}
        self._place: dict[int, int] = {}
        self._words = Words([], [])
        self._ids: dict[str, int] = {}
        self._sources: dict[int, Source] = {}
        self._merge: dict[str, Any] = {}
        self._raw: dict[tuple[int, int], _Raw] = {}
        self._decided: dict[int, dict[int, int]] = {}  # picture id -> term -> state
        self._disputed: np.ndarray | None = None
        self._copies: tuple[object, np.ndarray] | None = None
        self._lasting: dict[str, object] = {}
        self._entries = flat([])
        self._present = present(self._entries, 0, 0)
        self._edits = laid_over(self._present, 0, [])

    def pictures(self) -> list[Picture]:
        """In the order of their paths; masks and counts of this view speak of this order."""
        with self._fresh():
            return self._pictures

    def captions(self) -> list[str]:
        """Current caption texts, by place."""
        with self._fresh():
            return self._captions

    def places(self, pictures: Iterable[int]) -> list[int]:
        with self._fresh():
            return [self._place[i] for i in pictures if i in self._place]

    def remembered(self, name: str, make: Callable[[], Made]) -> Made:
        """What `make` works out of this view, kept under a name until anything changes."""
        with self._fresh():
            if name not in self._remembered:
                self._remembered[name] = make()
            return self._remembered[name]

    def kept(self, name: str) -> object:
        """What was kept under a name, however old; None where nothing is."""
        return self._lasting.get(name)

    def keep(self, name: str, value: object) -> None:
        """Keep a value beyond changes, for who knows how to bring it up to date. The oldest of many are dropped."""
        self._lasting.pop(name, None)
        self._lasting[name] = value
        for old in list(self._lasting)[:-MOST_KEPT]:
            del self._lasting[old]

    def _fresh(self) -> threading.RLock:
        with self._lock:
            if self.store.revision() != self._revision:
                self._refresh()
        return self._lock

    def _refresh(self) -> None:
        self._remembered = {}
        with self.store.reading():
            now, since = self.store.revision(), self._revision
            moved = self._read_pictures(since)
            changed = self._read_readings(since)
            self._read_terms()
            decided = self._read_decisions(since)
            sources = {s.id: s for s in self.store.sources()}
            merge = self.store.meta("merge", {"how": "union"})
        if moved or changed:
            self._entries = flat([(self._place[p], s, values[0], values[1]) for (p, s), values in self._used()])
        if moved or changed or sources != self._sources or merge != self._merge:
            self._sources, self._merge = sources, merge
            self._present, self._disputed = self._cut_and_merge(), None
            decided = True
        elif self._present.terms < len(self._words):
            p = self._present  # only the number of terms grew
            size = len(self._pictures), len(self._words)
            self._present = indexed(p.picture, p.term, p.score, p.position, *size)
        if decided:
            rows = [
                (self._place[picture], term, state)
                for picture, states in self._decided.items()
                if picture in self._place
                for term, state in states.items()
                if state
            ]
            self._edits = laid_over(self._present, len(self._words), rows)
        self._revision = now

    def _used(self) -> Iterator[tuple[tuple[int, int], _Raw]]:
        """Readings of pictures that are there; their order numbers the readings of the entries."""
        return (item for item in self._raw.items() if item[0][0] in self._place)

    def _kept(self) -> Entries:
        cuts = [values[2] for _, values in self._used()]
        return over_thresholds(self._entries, self._words, self._sources.values(), cuts)

    def _cut_and_merge(self) -> Present:
        sources = list(self._sources.values())
        nothing = np.zeros(0)
        readers = flat([(self._place[p], s, np.zeros(1), nothing) for (p, s), _ in self._used()])
        kept = agreed(self._kept(), self._words, sources, self._merge, readers)
        return present(kept, len(self._pictures), len(self._words))

    def _read_pictures(self, since: int) -> bool:
        if since >= 0 and not self.store.rows("SELECT 1 FROM pictures WHERE revision>? LIMIT 1", since):
            return False
        before = [p.id for p in self._pictures]
        self._pictures = self.store.pictures()
        texts = dict(self.store.rows("SELECT p.id, c.text FROM pictures p JOIN captions c ON c.id=p.caption"))
        self._captions = [texts.get(p.id, "") for p in self._pictures]
        self._measures = self.store.measures()
        self._place = {p.id: i for i, p in enumerate(self._pictures)}
        return before != [p.id for p in self._pictures]

    def _read_readings(self, since: int) -> bool:
        found = self.store.rows("SELECT picture, source, terms, scores, cuts FROM readings WHERE revision>?", since)
        for picture, source, terms, scores, cuts in found:
            values = (
                np.frombuffer(terms, "<u4"),
                np.frombuffer(scores, "<f4"),
                json.loads(cuts) if len(cuts) > 2 else {},
            )
            self._raw[picture, source] = values
        return bool(found)

    def _read_terms(self) -> None:
        terms = self.store.terms()
        size = max(terms, default=0) + 1
        words = Words([""] * size, [""] * size)
        for term, (name, category) in terms.items():
            words.names[term], words.categories[term] = name, category
        self._words = words
        self._ids = {name: term for term, (name, _) in terms.items()}

    def _read_decisions(self, since: int) -> bool:
        found = self.store.rows(
            "SELECT picture, term, state FROM decisions WHERE revision>? ORDER BY time, term", since
        )
        for picture, term, state in found:
            self._decided.setdefault(picture, {})[term] = state
        return bool(found)
