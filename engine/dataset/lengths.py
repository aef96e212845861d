"""How long the captions of a whole dataset are in tokens, fast enough for a filter.

No token goes over white space, so the tokens of a caption are those of its tags, trigger word and text: each is counted
once, and added up by picture. What rules cut is found by running sums. Implications make one tag depend on another, and
separators without a space join tags: captions with those are made one by one. After an edit only what it changed is
counted again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from engine.dataset.arrays import Edits, Present
from engine.dataset.captions import CaptionRules, canonical, caption, chains, mentions
from engine.dataset.tokens import count_tokens
from engine.dataset.view import View
from engine.dataset.written import WrittenTags


def token_counts(view: View, rules: CaptionRules, encoder: str) -> np.ndarray:
    """Tokens of every picture's caption for a text encoder, by place."""
    key = f"tokens {encoder} {rules.model_dump_json()}"
    return view.remembered(key, lambda: _updated(view, rules, encoder, key))


@dataclass(frozen=True)
class _Known:
    """What was counted, and of what."""

    present: Present
    edits: Edits
    texts: list[str]
    found: np.ndarray


def _updated(view: View, rules: CaptionRules, encoder: str, key: str) -> np.ndarray:
    (present, edits), texts, before = view.overlay(), view.captions(), view.kept(key)
    if isinstance(before, _Known) and before.present.term is present.term:
        changed, found = _changed(before, edits, texts), before.found.copy()
    else:
        changed, found = np.ones(len(texts), bool), np.zeros(len(texts), np.int64)
    places = np.flatnonzero(changed)
    if len(places):
        found[places] = _counted(view, rules, encoder, places)
    view.keep(key, _Known(present, edits, texts, found))
    return found


def _changed(before: _Known, edits: Edits, texts: list[str]) -> np.ndarray:
    """Pictures with other decisions on their tags, or another text, by place."""
    changed = np.array([old != new for old, new in zip(before.texts, texts, strict=True)], bool)
    changed[before.present.picture[before.edits.gone != edits.gone]] = True
    terms = 1 + max(before.edits.term.max(initial=0), edits.term.max(initial=0))
    pairs = [one.picture.astype(np.int64) * terms + one.term for one in (before.edits, edits)]
    changed[np.setxor1d(*pairs) // terms] = True
    return changed


def _counted(view: View, rules: CaptionRules, encoder: str, places: np.ndarray) -> np.ndarray:
    joined = f"a{rules.separator}b"
    if not rules.separator.endswith(" ") or " ".join(joined.split()) != joined:
        return _one_by_one(view, rules, encoder, places)
    found, implying = _added_up(view, rules, encoder, places), _implying(view, rules)[places]
    found[implying] = _one_by_one(view, rules, encoder, places[implying])
    return found


def _one_by_one(view: View, rules: CaptionRules, encoder: str, places: np.ndarray) -> np.ndarray:
    rows = [(view.pictures()[place], view.captions()[place]) for place in places.tolist()]
    counts = [count_tokens(encoder, caption(rules, view.tags(picture.id), text)) for picture, text in rows]
    return np.array(counts, np.int64)


def _implying(view: View, rules: CaptionRules) -> np.ndarray:
    """Pictures with a tag that implies another, where the rules do something about that."""
    if rules.implied == "keep" or not rules.implications:
        return np.zeros(len(view.pictures()), bool)
    aliases, implying = chains(rules.aliases), {canonical(name) for name in rules.implications}
    return view.hits(lambda name, _: aliases.get(name, name) in implying) > 0


def _added_up(view: View, rules: CaptionRules, encoder: str, places: np.ndarray) -> np.ndarray:
    limits = {name: most for name, most in rules.max_tokens.items() if most}
    texts = [" ".join(view.captions()[i].split()) if rules.parts != "tags" else "" for i in places.tolist()]
    trigger = np.array([not text or not mentions(text, rules.trigger_word) for text in texts], bool)
    trigger &= bool(rules.trigger_word)
    tags = WrittenTags.of(view, rules, [encoder, *limits], places)
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
class _Lengths:
    """Tokens of all captions for one encoder, by how many of their tags are kept."""

    rules: CaptionRules
    encoder: str
    texts: list[str]
    trigger: np.ndarray
    tags: WrittenTags

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
