"""The filter language: which pictures of a view a line of words means.

    long_hair -hat                 both must hold; - or NOT takes away; "long hair" in quotes may have spaces
    (cat OR dog) AND smile         OR, AND and brackets
    red_*                          * and ? stand for any letters of a tag
    tag:cat   text:"red hat"       exactly this tag; this text in tags, caption or path
    caption:words name:img_ path:sub/
    tags:>=7  chars:<100           how many tags; how long the caption text is
    score:cat>0.8                  a tagger gave the tag such a score
    source:wd  source:user         a source with this in its name read it; a person decided or wrote something
    w:>=1024 h:<512 res:<512 ar:>1.5    width, height, shorter side, width / height
    mask:yes crop:no     a mask is drawn on it; it is cut to a part
    dup:yes  dup:alternate         has near copies; was said to be an alternate of one
    blur:<10                       in the least sharp 10 % of the measured pictures
    disagree:>0.3                  share of its tags on which the taggers do not agree
    prose:loops prose:phrases prose:unfinished prose:contradicts    what is wrong with the caption text
    coverage:<0.5          share of the sure tags that the caption text mentions
    has:caption has:tags has:decisions
    changed:today changed:7d       decided or written by a person since then

A bare word is a tag where the dataset knows it, and else text to look for.
"""

from __future__ import annotations

import operator
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.dataset.captions import canonical, matches, pretty
from engine.dataset.copies import alternates
from engine.dataset.export import rules_in
from engine.dataset.lengths import token_counts
from engine.dataset.prose import Prose, check
from engine.dataset.records import RATING, USER, Mark
from engine.dataset.view import View
from engine.errors import InputError
from engine.settings import nearest

_TOKEN = re.compile(
    r'\s*(?:(?P<bracket>[()])|(?P<minus>-(?=\S))|(?P<word>(?:"[^"]*"|[^\s()"]|(?<=[^\s(])\([^\s()]*\))+))'
)
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


class BadFilter(InputError):
    en = "The filter '{text}' can't be understood at '{at}': {reason}."
    zh = "无法理解筛选条件“{text}”中的“{at_zh}”：{reason_zh}。"


class _BadValue(Exception):
    """A term's value is wrong: why, in both languages."""

    def __init__(self, reason: str, reason_zh: str) -> None:
        super().__init__(reason, reason_zh)
        self.reasons = reason, reason_zh


@dataclass
class _Words:
    text: str
    tokens: list[str]
    at: int = 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.at += 1
        return token

    def bad(self, at: str, reason: str, reason_zh: str) -> BadFilter:
        ends = at or "the end", at or "结尾"
        return BadFilter(text=self.text, at=ends[0], at_zh=ends[1], reason=reason, reason_zh=reason_zh)


def matching(view: View, text: str) -> np.ndarray:
    """Which pictures a filter means, by place in `view.pictures()`; all for an empty one. Raises BadFilter."""
    words = _Words(text, _split(text))
    if not words.tokens:
        return np.ones(len(view.pictures()), bool)
    found = _either(view, words)
    if words.peek():
        raise words.bad(words.peek(), "a bracket closes that was not opened", "右括号没有对应的左括号")
    return found


def _split(text: str) -> list[str]:
    tokens, at = [], 0
    text = text.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise _Words(text, []).bad(text[at:].strip()[:20], "a quote is not closed", "引号没有闭合")
        tokens.append(found.group().strip())
        at = found.end()
    return tokens


def _either(view: View, words: _Words) -> np.ndarray:
    found = _both(view, words)
    while words.peek().upper() == "OR":
        words.take()
        found = found | _both(view, words)
    return found


def _both(view: View, words: _Words) -> np.ndarray:
    found = _one(view, words)
    while words.peek() not in ("", ")") and words.peek().upper() != "OR":
        if words.peek().upper() == "AND":
            words.take()
        found = found & _one(view, words)
    return found


def _one(view: View, words: _Words) -> np.ndarray:
    token = words.take()
    if token in ("", ")") or token.upper() in ("AND", "OR"):
        raise words.bad(token, "a word is missing before it", "它前面缺少内容")
    if token == "-" or token.upper() == "NOT":
        return ~_one(view, words)
    if token == "(":
        found = _either(view, words)
        if words.take() != ")":
            raise words.bad("", "a bracket is not closed", "括号没有闭合")
        return found
    return _term(view, words, token)


def _term(view: View, words: _Words, token: str) -> np.ndarray:
    key, colon, value = token.partition(":")
    value = value.replace('"', "")
    if colon and key in _KEYS and value:
        try:
            return _KEYS[key](view, value)
        except _BadValue as error:
            raise words.bad(token, *error.reasons) from error
    word = token.replace('"', "")
    if colon and key.isalpha() and value and not token.startswith('"') and view.category(canonical(word)) is None:
        if key in _KEYS:
            raise words.bad(token, "a value is missing", "缺少值")
        close = nearest(key, list(_KEYS))
        if len(key) > 2:
            raise words.bad(
                token, f"there is no '{key}:'; did you mean '{close}:'", f"没有“{key}:”；您是否想写“{close}:”"
            )
    name = canonical(word)
    if "*" in name or "?" in name:
        return view.hits(lambda tag, _: matches(name, tag)) > 0
    return view.mask(name) if view.category(name) is not None else _text(view, word)


def _tag(view: View, value: str) -> np.ndarray:
    name = canonical(value)
    return view.hits(lambda tag, _: matches(name, tag)) > 0


def _text(view: View, value: str) -> np.ndarray:
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
        raise _BadValue("write it as score:TAG>0.8", "请写成 score:标签>0.8")
    scores = view.scores(canonical(found["tag"]))
    return np.nan_to_num(_compared(scores, found["number"]), nan=False) & ~np.isnan(scores)


def _source(view: View, value: str) -> np.ndarray:
    if value == USER:
        return _has(view, "decisions") | (view.written_since(0.0) > 0)
    return view.read_by(value)


def _marked(kind: Mark) -> Callable[[View, str], np.ndarray]:
    def found(view: View, value: str) -> np.ndarray:
        if value not in ("yes", "no"):
            raise _BadValue(f"write {kind}:yes or {kind}:no", f"请写成 {kind}:yes 或 {kind}:no")
        drawn = view.store.marked(kind)
        return np.array([(picture.id in drawn) == (value == "yes") for picture in view.pictures()], bool)

    return found


def _duplicate(view: View, value: str) -> np.ndarray:
    if value == "alternate":
        said = {id for pair in alternates(view.store) for id in pair}
        return np.array([picture.id in said for picture in view.pictures()], bool)
    if value not in ("yes", "no"):
        raise _BadValue("write dup:yes, dup:no or dup:alternate", "请写成 dup:yes、dup:no 或 dup:alternate")
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
    raise _BadValue("known are has:caption, has:tags, has:decisions", "可用：has:caption、has:tags、has:decisions")


_WRONG: dict[str, Callable[[Prose], bool]] = {
    "loops": lambda one: one.loops,
    "phrases": lambda one: bool(one.banned),
    "unfinished": lambda one: one.unfinished,
    "contradicts": lambda one: bool(one.contradictions),
}


def _prose(view: View, value: str) -> np.ndarray:
    if value not in _WRONG:
        known = ", ".join(f"prose:{name}" for name in _WRONG)
        raise _BadValue(f"known are {known}", f"可用：{known}")
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
        raise _BadValue("write changed:today or changed:7d", "请写成 changed:today 或 changed:7d")
    return view.written_since(now - int(days[1]) * _DAY) > 0


def _compared(values: np.ndarray, condition: str) -> np.ndarray:
    found = _NUMBER.match(condition)
    if found is None:
        raise _BadValue("a number is needed, such as >=7", "需要一个数字，例如 >=7")
    return _SIGNS[found["sign"] or "="](values, float(found["value"]))


def _size(of: Callable[[int, int], float]) -> Callable[[View, str], np.ndarray]:
    return lambda view, value: _compared(np.array([of(p.width, p.height) for p in view.pictures()], float), value)


# what can stand before a colon; a table, because the language is one
_KEYS: dict[str, Callable[[View, str], np.ndarray]] = {
    "tag": _tag,
    "text": _text,
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
