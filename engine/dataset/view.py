"""A dataset as it counts now: readings cut by their thresholds, merged over sources, then what the user decided.

It holds the readings as flat arrays, so that moving a threshold over 10,000 pictures or counting all tags takes
milliseconds, and refreshes itself with what any process wrote since. It formats nothing.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from engine.dataset.captions import Tag
from engine.dataset.measures import groups
from engine.dataset.store import RATING, USER, Picture, Policy, Source, Store

Merge = Literal["union", "intersection", "vote"]
TAGGER = "tagger:"  # sources whose tool starts so vote; what a person wrote or imported always counts


@dataclass(frozen=True)
class Count:
    """How many pictures have a tag."""

    name: str
    category: str
    pictures: int


@dataclass(frozen=True)
class Opinion:
    """What one source read of a tag in one picture, and whether it counts by that source's policy."""

    source: int
    tool: str
    score: float
    counts: bool


@dataclass(frozen=True)
class Annotation:
    """One tag of one picture with everything known of it. `decision`: 1 yes, -1 no, 0 none by the user."""

    name: str
    category: str
    present: bool
    decision: int
    opinions: tuple[Opinion, ...]

    @property
    def score(self) -> float:
        return max((o.score for o in self.opinions), default=1.0 if self.decision > 0 else 0.0)


@dataclass(frozen=True)
class Verdict:
    """The user's word on one tag of one picture, beside the score of a source (0 where it stored none)."""

    picture: int
    name: str
    category: str
    score: float
    proposed: bool
    right: bool


@dataclass(frozen=True)
class _Readings:
    """All readings end to end: for every entry its picture's place, term, score, place in its reading, and source."""

    picture: np.ndarray
    term: np.ndarray
    score: np.ndarray
    position: np.ndarray
    reading: np.ndarray
    source: np.ndarray


@dataclass(frozen=True)
class _Present:
    """The (picture, term) pairs that count by thresholds and merge, by picture; where each picture and term starts."""

    picture: np.ndarray
    term: np.ndarray
    score: np.ndarray
    position: np.ndarray
    starts: np.ndarray
    by_term: np.ndarray
    term_starts: np.ndarray


@dataclass(frozen=True)
class _Edits:
    """What the user's decisions change about _Present: entries that are gone, and (picture place, term) pairs added."""

    gone: np.ndarray
    picture: np.ndarray
    term: np.ndarray


class View:
    """Answers about one dataset. Every public method first takes in what changed, and is safe from any thread."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = threading.RLock()
        self._revision = -1
        self._pictures: list[Picture] = []
        self._captions: list[str] = []
        self._place: dict[int, int] = {}
        self._names: list[str] = []
        self._categories: list[str] = []
        self._ids: dict[str, int] = {}
        self._sources: dict[int, Source] = {}
        self._raw: dict[tuple[int, int], tuple[np.ndarray, np.ndarray, dict[str, float]]] = {}
        self._decided: dict[int, dict[int, int]] = {}  # picture id -> term -> state
        self._disputed: np.ndarray | None = None
        self._copies: tuple[bytes, np.ndarray] | None = None
        self._readings = _no_readings()
        self._present = _present_of(self._readings, 0, 0)
        self._edits = _Edits(np.zeros(0, bool), np.zeros(0, np.int64), np.zeros(0, np.int64))

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

    def mask(self, name: str) -> np.ndarray:
        """Which pictures have a tag, by place."""
        with self._fresh():
            found = np.zeros(len(self._pictures), bool)
            term = self._ids.get(name)
            if term is None:
                return found
            now, edits = self._present, self._edits
            entries = now.by_term[now.term_starts[term] : now.term_starts[term + 1]]
            found[now.picture[entries[~edits.gone[entries]]]] = True
            found[edits.picture[edits.term == term]] = True
            return found

    def hits(self, wanted: Callable[[str, str], bool]) -> np.ndarray:
        """How many tags for which wanted(name, category) holds each picture has, by place."""
        with self._fresh():
            pairs = zip(self._names, self._categories, strict=True)
            chosen = np.array([bool(name) and wanted(name, category) for name, category in pairs], bool)
            now, edits = self._present, self._edits
            read = np.bincount(now.picture[chosen[now.term] & ~edits.gone], minlength=len(self._pictures))
            return read + np.bincount(edits.picture[chosen[edits.term]], minlength=len(self._pictures))

    def scores(self, name: str) -> np.ndarray:
        """The highest score any enabled source gave a tag, by place; NaN where none read it."""
        with self._fresh():
            found = np.full(len(self._pictures), np.nan, np.float32)
            all = self._readings
            hit = all.term == self._ids.get(name, -1)
            np.fmax.at(found, all.picture[hit], all.score[hit])
            return found

    def tags(self, picture: int) -> list[Tag]:
        """The tags that count for a picture. Tags of the user come last and have score 1."""
        with self._fresh():
            place = self._place.get(picture)
            if place is None:
                return []
            now, decided = self._present, self._decided.get(picture, {})
            part = slice(now.starts[place], now.starts[place + 1])
            found: list[Tag] = []
            read: set[int] = set()
            for term, score, position in zip(
                now.term[part].tolist(), now.score[part].tolist(), now.position[part].tolist(), strict=True
            ):
                read.add(term)
                if decided.get(term, 0) >= 0:
                    found.append(Tag(self._names[term], self._categories[term], score, position))
            found.sort(key=lambda tag: tag.position)
            mine = [term for term, state in decided.items() if state > 0 and term not in read]
            last = found[-1].position + 1 if found else 0
            return found + [Tag(self._names[t], self._categories[t], 1.0, last + i) for i, t in enumerate(mine)]

    def counts(self, mask: np.ndarray | None = None) -> list[Count]:
        """Tags with the number of pictures that have them, most first, over all pictures or those of a mask."""
        with self._fresh():
            now, edits = self._present, self._edits
            chosen = np.ones(len(self._pictures), bool) if mask is None else mask
            totals = np.bincount(now.term[chosen[now.picture] & ~edits.gone], minlength=len(self._names))
            totals += np.bincount(edits.term[chosen[edits.picture]], minlength=len(self._names))
            order = np.argsort(-totals, kind="stable")
            rows = [(int(t), int(totals[t])) for t in order if totals[t] > 0]
            return [Count(self._names[t], self._categories[t], n) for t, n in rows]

    def decided(self) -> np.ndarray:
        """How many decisions of the user each picture has, by place."""
        with self._fresh():
            return np.array([sum(map(bool, self._decided.get(p.id, {}).values())) for p in self._pictures], int)

    def written_since(self, moment: float) -> np.ndarray:
        """How many tags a person decided on first, or captions wrote, since a unix time, by place."""
        with self._fresh():
            found = np.zeros(len(self._pictures), int)
            rows = self.store.rows(
                "SELECT picture FROM decisions WHERE time>=? AND state<>0 UNION ALL SELECT c.picture FROM captions c "
                "JOIN sources s ON s.id=c.source WHERE c.created>=? AND s.tool=?",
                moment,
                moment,
                USER,
            )
            np.add.at(found, [self._place[picture] for (picture,) in rows if picture in self._place], 1)
            return found

    def verdicts(self, source: int) -> list[Verdict]:
        """What the user decided, beside what one source read, in the pictures that this source read."""
        with self._fresh():
            policy = self._sources[source].policy
            found: list[Verdict] = []
            for picture, states in self._decided.items():
                values = self._raw.get((picture, source))
                if values is None or picture not in self._place:
                    continue
                terms, scores, cuts = values
                read = dict(zip(terms.tolist(), scores.tolist(), strict=True))
                for term, state in states.items():
                    if state:
                        score = read.get(term, 0.0)
                        proposed = score > self._cut(policy, term, cuts)
                        found.append(
                            Verdict(picture, self._names[term], self._categories[term], score, proposed, state > 0)
                        )
            return found

    def proposals(self) -> dict[int, dict[int, set[int]]]:
        """{tagger's source: {picture: terms over their thresholds}}, ratings left out."""
        with self._fresh():
            taggers = {s.id for s in self._sources.values() if s.tool.startswith(TAGGER) and s.policy.enabled}
            found: dict[int, dict[int, set[int]]] = {source: {} for source in taggers}
            for picture, source in self._raw:
                if source in taggers and picture in self._place:
                    found[source][picture] = set()
            kept = self._kept()
            for place, term, source in zip(
                kept.picture.tolist(), kept.term.tolist(), kept.source.tolist(), strict=True
            ):
                if source in taggers and self._categories[term] != RATING:
                    found[source][self._pictures[place].id].add(term)
            return found

    def margin(self) -> np.ndarray:
        """How far the score nearest to its threshold is from it, by place; infinite where no tagger read."""
        with self._fresh():
            found = np.full(len(self._pictures), np.inf)
            all = self._readings
            for source in self._sources.values():
                if not source.tool.startswith(TAGGER) or not source.policy.enabled:
                    continue
                mine = all.source == source.id
                table = np.array([self._cut(source.policy, t, {}) for t in range(len(self._names))], np.float32)
                table[np.array(self._categories) == RATING] = np.inf
                np.minimum.at(found, all.picture[mine], np.abs(all.score[mine] - table[all.term[mine]]))
            return found

    def together(self, name: str) -> list[Count]:
        """The tags that pictures with this tag have as well, most first."""
        return [count for count in self.counts(self.mask(name)) if count.name != name]

    def read_by(self, tool: str) -> np.ndarray:
        """Which pictures a source with `tool` in its name read, by place."""
        with self._fresh():
            wanted = {source.id for source in self._sources.values() if tool in source.tool}
            found = np.zeros(len(self._pictures), bool)
            found[[self._place[p] for p, source in self._raw if source in wanted and p in self._place]] = True
            return found

    def disagreement(self) -> np.ndarray:
        """Share of the tags some tagger admits that not all taggers admit, by place; 0 with fewer than two."""
        with self._fresh():
            if self._disputed is not None:
                return self._disputed
            taggers = {s.id for s in self._sources.values() if s.tool.startswith(TAGGER) and s.policy.enabled}
            readers = np.zeros(len(self._pictures), int)
            for picture, source in self._raw:
                if source in taggers and picture in self._place:
                    readers[self._place[picture]] += 1
            kept = self._kept()
            mine = np.isin(kept.source, list(taggers)) & (np.array(self._categories)[kept.term] != RATING)
            pair, votes = np.unique(kept.picture[mine] * len(self._names) + kept.term[mine], return_counts=True)
            place = pair // max(1, len(self._names))
            total = np.bincount(place, minlength=len(self._pictures))
            split = np.bincount(place[votes < readers[place]], minlength=len(self._pictures))
            self._disputed = np.where(readers > 1, split / np.maximum(total, 1), 0.0)
            return self._disputed

    def measured(self, what: str) -> np.ndarray:
        """A number that was measured of each picture, by place; NaN where it was not."""
        with self._fresh():
            known = self.store.measures()
            return np.array([known.get(p.id, {}).get(what, np.nan) for p in self._pictures], float)

    def near_copies(self) -> np.ndarray:
        """The group of near copies each measured picture is in, by place; -1 for none."""
        with self._fresh():
            known = self.store.measures()
            rows = [(i, known[p.id]) for i, p in enumerate(self._pictures) if p.id in known]
            hashes, mirrored = (np.array([m[key] for _, m in rows], np.uint64) for key in ("phash", "mirrored"))
            state = hashes.tobytes()
            if self._copies is None or self._copies[0] != state:  # comparing all with all takes a second for 20,000
                self._copies = state, groups(hashes, mirrored)
            found = np.full(len(self._pictures), -1)
            found[[i for i, _ in rows]] = self._copies[1]
            return found

    def names(self, category: str | None = None) -> list[str]:
        """All tags any source or the user ever named."""
        with self._fresh():
            return [n for n, c in zip(self._names, self._categories, strict=True) if n and category in (None, c)]

    def category(self, name: str) -> str | None:
        with self._fresh():
            term = self._ids.get(name)
            return None if term is None else self._categories[term]

    def sources(self) -> list[Source]:
        with self._fresh():
            return list(self._sources.values())

    def annotations(self, picture: int, floor: float = 0.0) -> list[Annotation]:
        """Every tag that some source read with at least `floor`, or the user decided, with all opinions; best first."""
        with self._fresh():
            present = {tag.name for tag in self.tags(picture)}
            opinions: dict[int, list[Opinion]] = {}
            for source in self._sources.values():
                if (picture, source.id) not in self._raw:
                    continue
                terms, scores, cuts = self._raw[picture, source.id]
                for term, score in zip(terms.tolist(), scores.tolist(), strict=True):
                    counts = score > self._cut(source.policy, term, cuts) and source.policy.enabled
                    opinions.setdefault(term, []).append(Opinion(source.id, source.tool, score, counts))
            decided = self._decided.get(picture, {})
            rows = [
                Annotation(
                    self._names[t],
                    self._categories[t],
                    self._names[t] in present,
                    decided.get(t, 0),
                    tuple(opinions.get(t, ())),
                )
                for t in {*opinions, *(t for t, state in decided.items() if state)}
            ]
            rows = [row for row in rows if row.present or row.decision or row.score >= floor]
            return sorted(rows, key=lambda row: (-row.score, row.name))

    def _fresh(self) -> threading.RLock:
        with self._lock:
            if self.store.revision() != self._revision:
                self._refresh()
        return self._lock

    def _refresh(self) -> None:
        with self.store._lock:  # one moment of the database for all the reads below
            now, since = self.store.revision(), self._revision
            moved = self._read_pictures(since)
            changed = self._read_readings(since)
            self._read_terms()
            decided = self._read_decisions(since)
            sources = {s.id: s for s in self.store.sources()}
            merge = self.store.meta("merge", {"how": "union"})
        if moved or changed:
            self._readings = self._flat()
        if moved or changed or sources != self._sources or merge != getattr(self, "_merge", None):
            self._sources, self._merge = sources, merge
            self._present, self._disputed = self._cut_and_merge(), None
            decided = True
        elif len(self._present.term_starts) <= len(self._names):
            self._present = _present_of(self._readings, len(self._pictures), len(self._names), self._present)
        if decided:
            self._edits = self._laid_over()
        self._revision = now

    def _read_pictures(self, since: int) -> bool:
        if since >= 0 and not self.store.rows("SELECT 1 FROM pictures WHERE revision>? LIMIT 1", since):
            return False
        before = [p.id for p in self._pictures]
        self._pictures = self.store.pictures()
        texts = dict(self.store.rows("SELECT p.id, c.text FROM pictures p JOIN captions c ON c.id=p.caption"))
        self._captions = [texts.get(p.id, "") for p in self._pictures]
        self._place = {p.id: i for i, p in enumerate(self._pictures)}
        return before != [p.id for p in self._pictures]

    def _read_readings(self, since: int) -> bool:
        found = self.store.rows("SELECT picture, source, terms, scores, cuts FROM readings WHERE revision>?", since)
        for picture, source, terms, scores, cuts in found:
            values = np.frombuffer(terms, "<u4"), np.frombuffer(scores, "<f4"), json.loads(cuts)
            self._raw[picture, source] = values
        return bool(found)

    def _read_terms(self) -> None:
        terms = self.store.terms()
        size = max(terms, default=0) + 1
        self._names, self._categories = [""] * size, [""] * size
        for term, (name, category) in terms.items():
            self._names[term], self._categories[term] = name, category
        self._ids = {name: term for term, (name, _) in terms.items()}

    def _read_decisions(self, since: int) -> bool:
        found = self.store.rows(
            "SELECT picture, term, state FROM decisions WHERE revision>? ORDER BY time, term", since
        )
        for picture, term, state in found:
            self._decided.setdefault(picture, {})[term] = state
        return bool(found)

    def _flat(self) -> _Readings:
        used = [(self._place[p], s, *values[:2]) for (p, s), values in self._raw.items() if p in self._place]
        if not used:
            return _no_readings()
        lengths = np.array([len(row[2]) for row in used])
        ends = np.cumsum(lengths)
        reading = np.repeat(np.arange(len(used)), lengths)
        return _Readings(
            picture=np.repeat(np.array([row[0] for row in used]), lengths),
            term=np.concatenate([row[2] for row in used]).astype(np.int64),
            score=np.concatenate([row[3] for row in used]),
            position=np.arange(ends[-1]) - np.repeat(ends - lengths, lengths),
            reading=reading,
            source=np.repeat(np.array([row[1] for row in used]), lengths),
        )

    def _cut_and_merge(self) -> _Present:
        return _present_of(self._agreed(self._kept()), len(self._pictures), len(self._names))

    def _kept(self) -> _Readings:
        """The entries over their thresholds."""
        all = self._readings
        if not len(all.term):
            return all
        keep = np.zeros(len(all.term), bool)
        category = np.array(self._categories, dtype=object)[all.term]
        cuts = [values[2] for (p, _), values in self._raw.items() if p in self._place]
        for source in self._sources.values():
            mine = all.source == source.id
            if not source.policy.enabled or not mine.any():
                continue
            table = np.array([self._cut(source.policy, term, {}) for term in range(len(self._names))], np.float32)
            limit = table[all.term[mine]]
            for name in source.policy.mcut:
                each = np.array([c.get(name, np.inf) for c in cuts], np.float32)
                limit = np.where(category[mine] == name, each[all.reading[mine]], limit)
            keep[mine] = all.score[mine] > limit
        rating = np.flatnonzero(category == RATING)
        if len(rating):  # one rating a reading: the likeliest
            top = np.full(int(all.reading[-1]) + 1, -np.inf, np.float32)
            np.maximum.at(top, all.reading[rating], all.score[rating])
            keep[rating] &= all.score[rating] == top[all.reading[rating]]
        return _Readings(*(values[keep] for values in vars(all).values()))

    def _laid_over(self) -> _Edits:
        """The decisions against what is present now."""
        now, terms = self._present, len(self._names)
        rows = [
            (self._place[picture] * terms + term, state)
            for picture, states in self._decided.items()
            if picture in self._place
            for term, state in states.items()
            if state
        ]
        pair, state = np.array(rows, np.int64).reshape(-1, 2).T
        present = now.picture * terms + now.term  # sorted, as _present_of leaves it
        entry = np.searchsorted(present, pair)
        read = np.zeros(len(pair), bool)
        inside = entry < len(present)
        read[inside] = present[entry[inside]] == pair[inside]
        gone = np.zeros(len(present), bool)
        gone[entry[read & (state < 0)]] = True
        added = pair[~read & (state > 0)]
        return _Edits(gone, added // max(1, terms), added % max(1, terms))

    def _agreed(self, kept: _Readings) -> _Readings:
        """Entries whose tag enough of the taggers that read the picture agree on, by weight."""
        how = self._merge.get("how", "union")
        if how == "union":
            return kept
        weight = np.zeros(max(self._sources, default=0) + 1)
        for source in self._sources.values():
            if source.tool.startswith(TAGGER) and source.policy.enabled:
                weight[source.id] = source.policy.weight
        possible = np.zeros(len(self._pictures))
        for picture, source in self._raw:
            if picture in self._place:
                possible[self._place[picture]] += weight[source]
        pair = kept.picture * len(self._names) + kept.term
        _, inverse = np.unique(pair, return_inverse=True)
        share = np.bincount(inverse, weights=weight[kept.source])[inverse] / np.maximum(possible[kept.picture], 1e-9)
        needed = 1.0 - 1e-6 if how == "intersection" else float(self._merge.get("share", 0.5)) - 1e-6
        chosen = (share >= needed) | (weight[kept.source] == 0)
        return _Readings(*(values[chosen] for values in vars(kept).values()))

    def _cut(self, policy: Policy, term: int, cuts: dict[str, float]) -> float:
        name, category = self._names[term], self._categories[term]
        if name in policy.per_tag:
            return policy.per_tag[name]
        if category == RATING:
            return -1.0
        if category in policy.mcut and cuts:
            return cuts.get(category, float("inf"))
        return policy.thresholds.get(category, 0.0)


def _no_readings() -> _Readings:
    whole = np.zeros(0, np.int64)
    return _Readings(whole, whole, np.zeros(0, np.float32), whole, whole, whole)


def _present_of(kept: _Readings, pictures: int, terms: int, now: _Present | None = None) -> _Present:
    """Each (picture, term) pair once, with its best score. `now`: only the number of terms grew."""
    if now is None:
        pair = kept.picture * max(1, terms) + kept.term
        order = np.lexsort((-kept.score, pair))
        first = order[np.flatnonzero(np.diff(pair[order], prepend=-1))] if len(order) else order
        picture, term, score, position = (v[first] for v in (kept.picture, kept.term, kept.score, kept.position))
    else:
        picture, term, score, position = now.picture, now.term, now.score, now.position
    by_term = np.argsort(term, kind="stable")
    return _Present(
        picture=picture,
        term=term,
        score=score,
        position=position,
        starts=np.searchsorted(picture, np.arange(pictures + 1)),
        by_term=by_term,
        term_starts=np.searchsorted(term[by_term], np.arange(terms + 1)),
    )
