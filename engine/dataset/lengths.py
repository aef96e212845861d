"""How long the captions of a whole dataset are in tokens, fast enough for a filter.

No token goes over white space, so the tokens of a caption are those of its tags, trigger word and text: each is counted
once, and added up by picture. What rules cut is found by running sums. Implications make one tag depend on another, and
separators without a space join tags: captions with those are made one by one, which takes seconds for 10,000 pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from engine.dataset.captions import CaptionRules, Tag, canonical, caption, chains, mentions, writer
from engine.dataset.tokens import count_tokens
from engine.dataset.view import View


def token_counts(view: View, rules: CaptionRules, encoder: str) -> np.ndarray:
    """Tokens of every picture's caption for a text encoder, by place."""
    key = f"tokens {encoder} {rules.model_dump_json()}"
    return view.remembered(key, lambda: _counted(view, rules, encoder))


def _counted(view: View, rules: CaptionRules, encoder: str) -> np.ndarray:
    joined = f"a{rules.separator}b"
    if not rules.separator.endswith(" ") or " ".join(joined.split()) != joined:
        all = len(view.pictures())
        return _one_by_one(view, rules, encoder, np.ones(all, bool), np.zeros(all, int))
    found = _added_up(view, rules, encoder)
    return _one_by_one(view, rules, encoder, _implying(view, rules), found)


def _one_by_one(view: View, rules: CaptionRules, encoder: str, chosen: np.ndarray, found: np.ndarray) -> np.ndarray:
    pictures, texts = view.pictures(), view.captions()
    for place in np.flatnonzero(chosen):
        found[place] = count_tokens(encoder, caption(rules, view.tags(pictures[place].id), texts[place]))
    return found


def _implying(view: View, rules: CaptionRules) -> np.ndarray:
    """Pictures with a tag that implies another, where the rules do something about that."""
    if rules.implied == "keep" or not rules.implications:
        return np.zeros(len(view.pictures()), bool)
    aliases, implying = chains(rules.aliases), {canonical(name) for name in rules.implications}
    return view.hits(lambda name, _: aliases.get(name, name) in implying) > 0


def _added_up(view: View, rules: CaptionRules, encoder: str) -> np.ndarray:
    limits = {name: most for name, most in rules.max_tokens.items() if most}
    texts = [" ".join(text.split()) if rules.parts != "tags" else "" for text in view.captions()]
    trigger = np.array([not text or not mentions(text, rules.trigger_word) for text in texts], bool)
    trigger &= bool(rules.trigger_word)
    tags = _Tags.of(view, rules, [encoder, *limits])
    lengths = {name: _Lengths(rules, name, texts, trigger, tags) for name in (encoder, *limits)}
    kept, fits = tags.count, np.ones(len(texts), bool)
    for name, most in limits.items():
        kept = np.minimum(kept, lengths[name].fitting(most))
    for name, most in limits.items():
        fits &= lengths[name].whole(kept) <= most
    found = lengths[encoder].whole(kept)
    for place in np.flatnonzero(~fits):  # no tag is left, and words of the text go
        first = f"{rules.trigger_word}{rules.separator.rstrip()}" if trigger[place] else ""
        found[place] = _cut(first, rules.trigger_word if trigger[place] else "", texts[place], limits, encoder)
    return found


def _cut(first: str, alone: str, text: str, limits: dict[str, int], encoder: str) -> int:
    """Tokens of as many words of a text as fit behind the trigger word."""
    names, words = [*limits, encoder], text.split()
    rows = [[count_tokens(name, first), *(count_tokens(name, word) for word in words)] for name in names]
    sums = np.cumsum(rows, axis=1)[:, 1:]
    fits = (sums[:-1] <= np.array(list(limits.values()))[:, None]).all(axis=0)
    most = int(np.argmin(fits)) if not fits.all() else len(words)
    return int(sums[-1, most - 1]) if most else count_tokens(encoder, alone)


@dataclass(frozen=True)
class _Tags:
    """The tags of all pictures as they are written, by picture and in order: how many tokens each has, by encoder, with
    what separates it from the next and without. `starts` is where each picture's begin, `count` how many it has."""

    starts: np.ndarray
    count: np.ndarray
    before: dict[str, np.ndarray]  # running sums with separator, one more than there are tags
    alone: dict[str, np.ndarray]

    @staticmethod
    def of(view: View, rules: CaptionRules, encoders: list[str]) -> _Tags:
        pictures, picture, term, score, position = view.entries()
        if rules.parts == "caption":
            picture, term, score, position = (values[:0] for values in (picture, term, score, position))
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
        starts = np.searchsorted(picture, np.arange(pictures + 1))
        count = np.diff(starts)
        return _Tags(
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
class _Lengths:
    """Tokens of all captions for one encoder, by how many of their tags are kept."""

    rules: CaptionRules
    encoder: str
    texts: list[str]
    trigger: np.ndarray
    tags: _Tags

    def whole(self, kept: np.ndarray) -> np.ndarray:
        """With the first `kept` tags of each picture."""
        tags, fixed, last = self.tags, *self._around
        before = tags.before[self.encoder]
        none = fixed[0] + last[0]
        if not len(tags.alone[self.encoder]):
            return none
        at = np.maximum(tags.starts + kept - 1, 0)
        ends = tags.alone[self.encoder][np.minimum(at, len(tags.alone[self.encoder]) - 1)]
        most = before[tags.starts + kept] - before[tags.starts]
        ended = before[np.minimum(at, len(before) - 1)] - before[tags.starts] + ends
        return np.where(kept == 0, none, np.where(self._prose_last, most, ended) + fixed[1] + last[1])

    def fitting(self, most: int) -> np.ndarray:
        """How many tags of each picture fit."""
        low, high = np.zeros(len(self.texts), np.int64), self.tags.count.copy()
        while (low < high).any():
            middle = (low + high + 1) // 2
            fits = self.whole(middle) <= most
            low, high = np.where(fits, middle, low), np.where(fits, high, middle - 1)
        return low

    @cached_property
    def _prose_last(self) -> np.ndarray:
        return np.array([bool(text) and self.rules.parts != "caption, tags" for text in self.texts], bool)

    @cached_property
    def _around(self) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """What trigger word and text add (without tags, with tags)."""
        end, encoder, word = self.rules.separator.rstrip(), self.encoder, self.rules.trigger_word
        told = np.array([bool(text) for text in self.texts], bool)
        prose = np.array([count_tokens(encoder, text) for text in self.texts], np.int64)
        separated = np.array([count_tokens(encoder, text + end) if text else 0 for text in self.texts], np.int64)
        apart, alone = self.trigger * count_tokens(encoder, word + end), self.trigger * count_tokens(encoder, word)
        beside = separated if self.rules.parts == "caption, tags" else prose
        return (np.where(told, apart, alone), apart), (prose, beside)


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
