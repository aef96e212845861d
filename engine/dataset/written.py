"""Tags as caption rules write them, of many pictures at once, as arrays of how many tokens each has.

What the rules make of a tag is worked out once for each tag. Implications, by which tags depend on others, are left
aside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from engine.dataset.captions import CaptionRules, Tag, writer
from engine.dataset.tokens import count_tokens
from engine.dataset.view import View


@dataclass(frozen=True)
class WrittenTags:
    """The tags of some pictures as they are written, by picture and in order: how many tokens each has, by encoder.

    `starts` is where each picture's begin, `count` how many it has; tokens are with what separates a tag from the next,
    and without.
    """

    starts: np.ndarray
    count: np.ndarray
    before: dict[str, np.ndarray]  # running sums with separator, one more than there are tags
    alone: dict[str, np.ndarray]

    @staticmethod
    def of(view: View, rules: CaptionRules, encoders: list[str], places: np.ndarray) -> WrittenTags:
        picture, term, score, position = view.entries(places if rules.parts != "caption" else places[:0])
        table = _Table(view, rules, term)
        entries = np.flatnonzero(table.word[term] >= 0)
        ties = {
            "score": [position[entries], -score[entries]],
            "alphabet": [position[entries], table.alphabet[term[entries]]],
            "as read": [position[entries]],
        }[rules.order]
        group = picture[entries].astype(np.int64) * (table.places + 1) + table.place[term[entries]]
        entries = entries[np.lexsort([*ties, group])]
        picture, word = picture[entries], table.word[term[entries]]
        if table.shared:  # several tags are written alike: the first of a picture stays
            _, first = np.unique(picture.astype(np.int64) * (int(word.max(initial=0)) + 1) + word, return_index=True)
            first.sort()
            picture, word = picture[first], word[first]
        starts = np.searchsorted(picture, np.arange(len(places) + 1))
        count = np.diff(starts)
        return WrittenTags(
            starts=starts[:-1],
            count=np.minimum(count, rules.max_tags) if rules.max_tags else count,
            before={name: np.concatenate([[0], np.cumsum(table.tokens(name, True)[word])]) for name in encoders},
            alone={name: table.tokens(name, False)[word] for name in encoders},
        )


class _Table:
    """What the rules write for each term: `word` numbers the texts, -1 where it is left out; `place` is the rank of its
    group (the tags that come first, each of its own, then the categories)."""

    def __init__(self, view: View, rules: CaptionRules, term: np.ndarray) -> None:
        self._separator = rules.separator.rstrip()
        used, terms = np.flatnonzero(np.bincount(term)).tolist(), view.terms()
        key = rules.model_dump_json()
        found = {i: _written(key, *terms[i]) for i in used}
        texts = {one.text: 0 for one in found.values() if one and one.text != rules.trigger_word}
        self.texts = list(texts)
        numbers = {text: number for number, text in enumerate(self.texts)}
        names = {name: i for i, name in enumerate(sorted({one.name for one in found.values() if one}))}
        size = max(used, default=0) + 1
        self.word, self.place, self.alphabet = (np.full(size, -1, np.int64) for _ in range(3))
        for i, one in found.items():
            if one is not None:
                self.word[i] = numbers.get(one.text, -1)
                self.place[i], self.alphabet[i] = one.place, names[one.name]
        self.places = int(self.place.max(initial=0))
        self.shared = len(texts) < int((self.word >= 0).sum())

    def tokens(self, encoder: str, separated: bool) -> np.ndarray:
        end = self._separator if separated else ""
        return np.array([count_tokens(encoder, text + end) for text in self.texts], np.int64)


@dataclass(frozen=True)
class _Written:
    name: str
    text: str
    place: int


@lru_cache(maxsize=200_000)
def _written(rules: str, name: str, category: str) -> _Written | None:
    """One tag as the rules write it; None where it is left out."""
    found = _writer(rules)(Tag(name, category))
    return None if found is None else _Written(*found)


@lru_cache(maxsize=8)
def _writer(rules: str) -> Callable[[Tag], tuple[str, str, int] | None]:
    return writer(CaptionRules.model_validate_json(rules))
