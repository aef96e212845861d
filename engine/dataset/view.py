"""A dataset as it counts now: what is asked of it. It formats nothing; how it is kept is in view_state.py, what taggers
and the user make of each other in view_judged.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from engine.dataset.arrays import Edits, Present
from engine.dataset.captions import Tag
from engine.dataset.copies import alternates, groups
from engine.dataset.records import RATING, USER, Source
from engine.dataset.view_judged import Judged


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


class View(Judged):
    """Answers about one dataset. Every public method first takes in what changed, and is safe from any thread."""

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
            pairs = zip(self._words.names, self._words.categories, strict=True)
            chosen = np.array([bool(name) and wanted(name, category) for name, category in pairs], bool)
            now, edits = self._present, self._edits
            read = np.bincount(now.picture[chosen[now.term] & ~edits.gone], minlength=len(self._pictures))
            return read + np.bincount(edits.picture[chosen[edits.term]], minlength=len(self._pictures))

    def entries(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(which of `places`, term, score, position) of every tag that counts for those pictures.

        As in `tags`, those of the user come after the others.
        """
        with self._fresh():
            now, edits = self._present, self._edits
            number = np.full(len(self._pictures), -1)
            number[places] = np.arange(len(places))
            kept = np.flatnonzero((number[now.picture] >= 0) & ~edits.gone)
            own = np.flatnonzero(number[edits.picture] >= 0)
            last = int(now.position.max(initial=0)) + 1
            return (
                np.concatenate([number[now.picture[kept]], number[edits.picture[own]]]),
                np.concatenate([now.term[kept], edits.term[own]]),
                np.concatenate([now.score[kept], np.ones(len(own), np.float32)]),
                np.concatenate([now.position[kept], last + own]),
            )

    def overlay(self) -> tuple[Present, Edits]:
        """What counts by readings, and what the user's decisions change about it. After an edit of decisions the first
        has the very arrays that it had."""
        with self._fresh():
            return self._present, self._edits

    def terms(self) -> list[tuple[str, str]]:
        """(name, category) of all terms, by number."""
        with self._fresh():
            return list(zip(self._words.names, self._words.categories, strict=True))

    def scores(self, name: str) -> np.ndarray:
        """The highest score any enabled source gave a tag, by place; NaN where none read it."""
        with self._fresh():
            found = np.full(len(self._pictures), np.nan, np.float32)
            all = self._entries
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
                    found.append(Tag(self._words.names[term], self._words.categories[term], score, position))
            found.sort(key=lambda tag: tag.position)
            mine = [term for term, state in decided.items() if state > 0 and term not in read]
            last = found[-1].position + 1 if found else 0
            return found + [
                Tag(self._words.names[t], self._words.categories[t], 1.0, last + i) for i, t in enumerate(mine)
            ]

    def names_over(self, score: float) -> list[tuple[str, ...]]:
        """The tags of each picture that count with at least this score, by place; ratings left out, the user's last."""
        with self._fresh():
            now, edits = self._present, self._edits
            common = np.array([category != RATING for category in self._words.categories], bool)
            read = np.flatnonzero((now.score >= score) & ~edits.gone & common[now.term])
            place = now.picture[read].astype(np.int64) << 32 | now.position[read].astype(np.int64)
            read = read[np.argsort(place, kind="stable")]  # nearly sorted already, which costs little
            own = np.flatnonzero(common[edits.term])
            picture = np.concatenate([now.picture[read], edits.picture[own]])
            order = np.argsort(picture, kind="stable")
            terms = np.concatenate([now.term[read], edits.term[own]])[order].tolist()
            ends = np.searchsorted(picture[order], np.arange(len(self._pictures) + 1)).tolist()
            names = self._words.names
            return [tuple([names[t] for t in terms[a:b]]) for a, b in pairwise(ends)]

    def counts(self, mask: np.ndarray | None = None) -> list[Count]:
        """Tags with the number of pictures that have them, most first, over all pictures or those of a mask."""
        with self._fresh():
            now, edits = self._present, self._edits
            chosen = np.ones(len(self._pictures), bool) if mask is None else mask
            totals = np.bincount(now.term[chosen[now.picture] & ~edits.gone], minlength=len(self._words.names))
            totals += np.bincount(edits.term[chosen[edits.picture]], minlength=len(self._words.names))
            order = np.argsort(-totals, kind="stable")
            rows = [(int(t), int(totals[t])) for t in order if totals[t] > 0]
            return [Count(self._words.names[t], self._words.categories[t], n) for t, n in rows]

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

    def together(self, name: str) -> list[Count]:
        """The tags that pictures with this tag have as well, most first."""
        return [count for count in self.counts(self.mask(name)) if count.name != name]

    def read_by(self, tool: str) -> np.ndarray:
        """Pictures of which a source with `tool` in its name read tags, a caption or regions, by place."""
        with self._fresh():
            wanted = {source.id for source in self._sources.values() if tool in source.tool and source.tool != USER}
            pictures = {picture for (picture, source), read in self._raw.items() if source in wanted and len(read[0])}
            for table in ("captions", "regions WHERE regions<>'[]'"):
                rows = self.store.rows(f"SELECT DISTINCT picture, source FROM {table}")
                pictures.update(picture for picture, source in rows if source in wanted)
            found = np.zeros(len(self._pictures), bool)
            found[[self._place[picture] for picture in pictures if picture in self._place]] = True
            return found

    def measured(self, what: str) -> np.ndarray:
        """A number that was measured of each picture, by place; NaN where it was not."""
        with self._fresh():
            return np.array([self._measures.get(p.id, {}).get(what, np.nan) for p in self._pictures], float)

    def near_copies(self) -> np.ndarray:
        """The group of near copies each measured picture is in, by place; -1 for none. Alternates are no copies."""
        with self._fresh():
            return self.remembered("near copies", self._near_copies)

    def _near_copies(self) -> np.ndarray:
        known = [(i, self._measures[p.id]) for i, p in enumerate(self._pictures) if p.id in self._measures]
        hashes, mirrored = (np.array([m[key] for _, m in known], np.uint64) for key in ("phash", "mirrored"))
        places = {self._pictures[i].id: row for row, (i, _) in enumerate(known)}
        pairs = ((places.get(one, -1), places.get(other, -1)) for one, other in alternates(self.store))
        apart = {pair for pair in pairs if min(pair) >= 0}
        state = hashes.tobytes(), frozenset(apart)
        if self._copies is None or self._copies[0] != state:  # seconds for 100,000, so not after every edit
            self._copies = state, groups(hashes, mirrored, apart)
        found, rows = np.full(len(self._pictures), -1), np.array([i for i, _ in known], int)
        found[rows] = np.where(self._copies[1] >= 0, rows[self._copies[1]], -1) if len(rows) else -1
        return found

    def names(self, category: str | None = None) -> list[str]:
        """All tags any source or the user ever named."""
        with self._fresh():
            return [
                n for n, c in zip(self._words.names, self._words.categories, strict=True) if n and category in (None, c)
            ]

    def category(self, name: str) -> str | None:
        with self._fresh():
            term = self._ids.get(name)
            return None if term is None else self._words.categories[term]

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
                    counts = score > self._words.cut(source.policy, term, cuts) and source.policy.enabled
                    opinions.setdefault(term, []).append(Opinion(source.id, source.tool, score, counts))
            decided = self._decided.get(picture, {})
            rows = [
                Annotation(
                    self._words.names[t],
                    self._words.categories[t],
                    self._words.names[t] in present,
                    decided.get(t, 0),
                    tuple(opinions.get(t, ())),
                )
                for t in {*opinions, *(t for t, state in decided.items() if state)}
            ]
            rows = [row for row in rows if row.present or row.decision or row.score >= floor]
            return sorted(rows, key=lambda row: (-row.score, row.name))
