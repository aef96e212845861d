"""What can stand before a colon in a filter (query.py): one function a word, from a value to the pictures it means."""

from __future__ import annotations

import operator
import re
import time
from collections.abc import Callable

import numpy as np

from engine.dataset.captions import canonical, matches, pretty
from engine.dataset.copies import alternates
from engine.dataset.export import rules_in
from engine.dataset.lengths import token_counts
from engine.dataset.prose import Prose, check
from engine.dataset.records import RATING, USER, Mark
from engine.dataset.view import View

_NUMBER = re.compile(r"(?P<sign><=|>=|==|!=|=|<|>)?(?P<value>\d+(?:\.\d+)?)$")
_SIGNS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
}
_DAY = 86_400.0


class BadValue(Exception):
    """A term's value is wrong: why, in both languages."""

    def __init__(self, reason: str, reason_zh: str) -> None:
        super().__init__(reason, reason_zh)
        self.reasons = reason, reason_zh


def _tag(view: View, value: str) -> np.ndarray:
    name = canonical(value)
    return view.hits(lambda tag, _: matches(name, tag)) > 0


def text_in(view: View, value: str) -> np.ndarray:
    wanted = value.casefold()
    in_tags = view.hits(lambda tag, _: wanted in tag.casefold() or wanted in pretty(tag).casefold()) > 0
    return in_tags | _caption(view, value) | _path(view, value)


def _caption(view: View, value: str) -> np.ndarray:
    has = _inside(value)
    return np.array([has(text) for text in view.captions()], bool)


def _name(view: View, value: str) -> np.ndarray:
    has = _inside(value)
    return np.array([has(picture.name) for picture in view.pictures()], bool)


def _path(view: View, value: str) -> np.ndarray:
    has = _inside(value)
    return np.array([any(map(has, picture.paths)) for picture in view.pictures()], bool)


def _inside(wanted: str) -> Callable[[str], bool]:
    """Whether a text has `wanted` in it, whatever the case; * and ? stand for any letters."""
    folded = wanted.casefold()
    if "*" not in folded and "?" not in folded:
        return lambda text: folded in text.casefold()
    pattern = re.compile(re.escape(folded).replace(r"\*", ".*").replace(r"\?", "."), re.DOTALL)
    return lambda text: pattern.search(text.casefold()) is not None


def _tokens(view: View, value: str) -> np.ndarray:
    return _compared(token_counts(view, rules_in(view.store), "clip"), value)


def _score(view: View, value: str) -> np.ndarray:
    found = re.match(r"(?P<tag>.+?)(?P<number>(?:<=|>=|==|!=|=|<|>)\d+(?:\.\d+)?)$", value)
    if found is None:
        raise BadValue("write it as score:TAG>0.8", "请写成 score:标签>0.8")
    scores = view.scores(canonical(found["tag"]))
    return np.nan_to_num(_compared(scores, found["number"]), nan=False) & ~np.isnan(scores)


def _source(view: View, value: str) -> np.ndarray:
    if value == USER:
        return _has(view, "decisions") | (view.written_since(0.0) > 0)
    return view.read_by(value)


def _marked(kind: Mark) -> Callable[[View, str], np.ndarray]:
    def found(view: View, value: str) -> np.ndarray:
        if value not in ("yes", "no"):
            raise BadValue(f"write {kind}:yes or {kind}:no", f"请写成 {kind}:yes 或 {kind}:no")
        drawn = view.store.marked(kind)
        return np.array([(picture.id in drawn) == (value == "yes") for picture in view.pictures()], bool)

    return found


def _duplicate(view: View, value: str) -> np.ndarray:
    if value == "alternate":
        said = {id for pair in alternates(view.store) for id in pair}
        return np.array([picture.id in said for picture in view.pictures()], bool)
    if value not in ("yes", "no"):
        raise BadValue("write dup:yes, dup:no or dup:alternate", "请写成 dup:yes、dup:no 或 dup:alternate")
    return (view.near_copies() >= 0) == (value == "yes")


def _blur(view: View, value: str) -> np.ndarray:
    """Percentile of sharpness within the set; 0 is the least sharp."""
    sharp = view.measured("sharpness")
    known = ~np.isnan(sharp)
    rank = np.full(len(sharp), np.nan)
    order = np.argsort(np.argsort(sharp[known]))
    rank[known] = 100.0 * order / max(1, known.sum() - 1)
    return _compared(rank, value) & known


def _has(view: View, value: str) -> np.ndarray:
    if value == "caption":
        return np.array([bool(text) for text in view.captions()], bool)
    if value == "tags":
        return view.hits(lambda _, category: category != RATING) > 0
    if value == "decisions":
        return view.decided() > 0
    raise BadValue("known are has:caption, has:tags, has:decisions", "可用：has:caption、has:tags、has:decisions")


_WRONG: dict[str, Callable[[Prose], bool]] = {
    "loops": lambda one: one.loops,
    "phrases": lambda one: bool(one.banned),
    "unfinished": lambda one: one.unfinished,
    "contradicts": lambda one: bool(one.contradictions),
}


def _prose(view: View, value: str) -> np.ndarray:
    if value not in _WRONG:
        known = ", ".join(f"prose:{name}" for name in _WRONG)
        raise BadValue(f"known are {known}", f"可用：{known}")
    wrong = {one.picture for one in view.remembered("prose", lambda: check(view)) if _WRONG[value](one)}
    return np.array([picture.id in wrong for picture in view.pictures()], bool)


def _coverage(view: View, value: str) -> np.ndarray:
    share = {one.picture: one.coverage for one in view.remembered("prose", lambda: check(view))}
    shares = np.array([share.get(picture.id, np.nan) for picture in view.pictures()], float)
    return _compared(shares, value) & ~np.isnan(shares)


def _changed(view: View, value: str) -> np.ndarray:
    now = time.time()
    if value == "today":
        midnight = time.mktime((*time.localtime(now)[:3], 0, 0, 0, 0, 0, -1))
        return view.written_since(midnight) > 0
    days = re.match(r"(\d+)d$", value)
    if days is None:
        raise BadValue("write changed:today or changed:7d", "请写成 changed:today 或 changed:7d")
    return view.written_since(now - int(days[1]) * _DAY) > 0


def _compared(values: np.ndarray, condition: str) -> np.ndarray:
    found = _NUMBER.match(condition)
    if found is None:
        raise BadValue("a number is needed, such as >=7", "需要一个数字，例如 >=7")
    return _SIGNS[found["sign"] or "="](values, float(found["value"]))


def _size(of: Callable[[int, int], float]) -> Callable[[View, str], np.ndarray]:
    return lambda view, value: _compared(np.array([of(p.width, p.height) for p in view.pictures()], float), value)


# what can stand before a colon; a table, because the language is one
KEYS: dict[str, Callable[[View, str], np.ndarray]] = {
    "tag": _tag,
    "text": text_in,
    "caption": _caption,
    "name": _name,
    "path": _path,
    "tags": lambda view, value: _compared(view.hits(lambda _, category: category != RATING), value),
    "chars": lambda view, value: _compared(np.array([len(text) for text in view.captions()]), value),
    "tokens": _tokens,
    "score": _score,
    "source": _source,
    "w": _size(lambda w, h: w),
    "h": _size(lambda w, h: h),
    "res": _size(min),
    "ar": _size(lambda w, h: w / max(1, h)),
    "mask": _marked("mask"),
    "crop": _marked("crop"),
    "dup": _duplicate,
    "blur": _blur,
    "disagree": lambda view, value: _compared(view.disagreement(), value),
    "prose": _prose,
    "coverage": _coverage,
    "has": _has,
    "changed": _changed,
}
