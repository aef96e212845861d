"""The arithmetic under a view: readings as flat arrays, cut by thresholds, merged over sources, overlaid by decisions.

A million entries take a tenth of a second. It knows no store; pictures are places in a list, tags are numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from engine.dataset.records import RATING, Policy, Source

TAGGER = "tagger:"  # sources whose tool starts so vote; what a person wrote or imported always counts


@dataclass(frozen=True)
class Words:
    """All terms by number: canonical names and categories; empty where a number is not used."""

    names: list[str]
    categories: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def cut(self, policy: Policy, term: int, cuts: Mapping[str, float]) -> float:
        """The score that a term must be over; `cuts` are the reading's MCut thresholds by category."""
        name, category = self.names[term], self.categories[term]
        if name in policy.per_tag:
            return policy.per_tag[name]
        if category == RATING:
            return -1.0  # the likeliest one counts, whatever its score
        if category in policy.mcut and cuts:
            return cuts.get(category, float("inf"))
        return policy.thresholds.get(category, 0.0)


@dataclass(frozen=True)
class Entries:
    """Readings end to end: for every entry its picture's place, term, score, place in its reading, reading, source."""

    picture: np.ndarray
    term: np.ndarray
    score: np.ndarray
    position: np.ndarray
    reading: np.ndarray
    source: np.ndarray

    def where(self, chosen: np.ndarray) -> Entries:
        return Entries(*(values[chosen] for values in vars(self).values()))


@dataclass(frozen=True)
class Present:
    """The (picture, term) pairs that count by thresholds and merge, by picture; where each picture starts."""

    picture: np.ndarray
    term: np.ndarray
    score: np.ndarray
    position: np.ndarray
    starts: np.ndarray
    terms: int

    @cached_property
    def by_term(self) -> np.ndarray:
        """The entries by term, worked out when it is first asked for one."""
        return np.argsort(self.term, kind="stable")

    @cached_property
    def term_starts(self) -> np.ndarray:
        return np.searchsorted(self.term[self.by_term], np.arange(self.terms + 1))


@dataclass(frozen=True)
class Edits:
    """What the user's decisions change about Present: entries that are gone, and (picture place, term) pairs added."""

    gone: np.ndarray
    picture: np.ndarray
    term: np.ndarray


def flat(readings: Sequence[tuple[int, int, np.ndarray, np.ndarray]]) -> Entries:
    """Readings (picture's place, source, terms, scores) as entries."""
    if not readings:
        whole = np.zeros(0, np.int64)
        return Entries(whole, whole, np.zeros(0, np.float32), whole, whole, whole)
    lengths = np.array([len(row[2]) for row in readings])
    ends = np.cumsum(lengths)
    return Entries(
        picture=np.repeat(np.array([row[0] for row in readings]), lengths),
        term=np.concatenate([row[2] for row in readings]).astype(np.int64),
        score=np.concatenate([row[3] for row in readings]),
        position=np.arange(ends[-1]) - np.repeat(ends - lengths, lengths),
        reading=np.repeat(np.arange(len(readings)), lengths),
        source=np.repeat(np.array([row[1] for row in readings]), lengths),
    )


def over_thresholds(
    all: Entries, words: Words, sources: Iterable[Source], cuts: Sequence[Mapping[str, float]]
) -> Entries:
    """The entries that their source's policy admits. `cuts` are the MCut thresholds of each reading, in order."""
    if not len(all.term):
        return all
    keep = np.zeros(len(all.term), bool)
    category = np.array(words.categories, dtype=object)[all.term]
    for source in sources:
        mine = all.source == source.id
        if not source.policy.enabled or not mine.any():
            continue
        limit = limits(words, source.policy)[all.term[mine]]
        for name in source.policy.mcut:
            each = np.array([c.get(name, np.inf) for c in cuts], np.float32)
            own = np.isin(all.term[mine], [i for i, word in enumerate(words.names) if word in source.policy.per_tag])
            limit = np.where((category[mine] == name) & ~own, each[all.reading[mine]], limit)
        keep[mine] = all.score[mine] > limit
    rating = np.flatnonzero(category == RATING)
    if len(rating):  # one a reading: the likeliest
        top = np.full(int(all.reading[-1]) + 1, -np.inf, np.float32)
        np.maximum.at(top, all.reading[rating], all.score[rating])
        keep[rating] &= all.score[rating] == top[all.reading[rating]]
    return all.where(keep)


def limits(words: Words, policy: Policy) -> np.ndarray:
    """The threshold of every term, MCut left aside."""
    return np.array([words.cut(policy, term, {}) for term in range(len(words))], np.float32)


def agreed(
    kept: Entries, words: Words, sources: Iterable[Source], merge: Mapping[str, Any], readers: Entries | None
) -> Entries:
    """Entries whose tag enough of the taggers that read the picture agree on, by weight.

    merge: {"how": "union" | "intersection" | "vote", "share": of the weight for a vote}. `readers` has one entry for
    each reading, with its picture and source. First of all goes what sources that subtract have read.
    """
    kept = _subtracted(kept, len(words), sources := list(sources))
    how = merge.get("how", "union")
    if how == "union" or readers is None or not len(readers.picture):
        return kept
    voters = [s for s in sources if s.tool.startswith(TAGGER) and s.policy.enabled and not s.policy.subtracts]
    weight = np.zeros(1 + max((*kept.source.tolist(), *readers.source.tolist()), default=0))
    for source in voters:
        if source.id < len(weight):
            weight[source.id] = source.policy.weight
    possible = np.bincount(readers.picture, weights=weight[readers.source])
    _, inverse = np.unique(kept.picture * len(words) + kept.term, return_inverse=True)
    share = np.bincount(inverse, weights=weight[kept.source])[inverse] / np.maximum(possible[kept.picture], 1e-9)
    needed = 1.0 if how == "intersection" else float(merge.get("share", 0.5))
    return kept.where((share >= needed - 1e-6) | (weight[kept.source] == 0))


def _subtracted(kept: Entries, terms: int, sources: Iterable[Source]) -> Entries:
    """Entries without those of sources that subtract, and without the (picture, term) pairs that these read."""
    taking = np.isin(kept.source, [source.id for source in sources if source.policy.subtracts])
    if not taking.any():
        return kept
    pair = kept.picture * terms + kept.term
    return kept.where(~taking & ~np.isin(pair, pair[taking]))


def present(kept: Entries, pictures: int, terms: int) -> Present:
    """Each (picture, term) pair once, with its best score."""
    pair = kept.picture * max(1, terms) + kept.term
    order = np.argsort(pair, kind="stable")
    new = np.diff(pair[order], prepend=-1) != 0
    if len(order) and not new.all():  # several read the same tag
        starts, number = np.flatnonzero(new), np.cumsum(new) - 1
        score = kept.score[order]
        most = np.flatnonzero(score == np.maximum.reduceat(score, starts)[number])
        order = order[most[np.diff(number[most], prepend=-1) != 0]]
    best = kept.where(order)
    return indexed(best.picture, best.term, best.score, best.position, pictures, terms)


def indexed(
    picture: np.ndarray, term: np.ndarray, score: np.ndarray, position: np.ndarray, pictures: int, terms: int
) -> Present:
    """Pairs sorted by picture and term, with where each picture starts."""
    return Present(
        picture=picture,
        term=term,
        score=score,
        position=position,
        starts=np.searchsorted(picture, np.arange(pictures + 1)),
        terms=terms,
    )


def laid_over(now: Present, terms: int, decisions: Sequence[tuple[int, int, int]]) -> Edits:
    """Decisions (picture's place, term, 1 or -1) against what is present."""
    place, term, state = np.array(decisions, np.int64).reshape(-1, 3).T
    pair, known = place * terms + term, now.picture * terms + now.term
    entry = np.searchsorted(known, pair)
    read = np.zeros(len(pair), bool)
    inside = entry < len(known)
    read[inside] = known[entry[inside]] == pair[inside]
    gone = np.zeros(len(known), bool)
    gone[entry[read & (state < 0)]] = True
    added = ~read & (state > 0)
    return Edits(gone, place[added], term[added])
