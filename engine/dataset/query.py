"""The filter language: which pictures of a view a line of words means.

    long_hair -hat                 both must hold; - or NOT takes away; "long hair" in quotes may have spaces
    (cat OR dog) AND smile         OR, AND and brackets
    red_*                          * and ? stand for any letters of a tag
    tag:cat   text:"red hat"       exactly this tag; this text in tags, caption or path
    caption:words name:img_ path:sub/
    tags:>=7  chars:<100           how many tags; how long the caption text is
    score:cat>0.8                  a tagger gave the tag such a score
    source:wd  source:user         a source with this in its name gave it tags, a caption or regions; a person did
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

import re
from dataclasses import dataclass

import numpy as np

from engine.dataset.captions import canonical, matches
from engine.dataset.query_terms import KEYS, BadValue, text_in
from engine.dataset.view import View
from engine.errors import InputError
from engine.settings import nearest

_TOKEN = re.compile(
    r'\s*(?:(?P<bracket>[()])|(?P<minus>-(?=\S))|(?P<word>(?:"[^"]*"|[^\s()"]|(?<=[^\s(])\([^\s()]*\))+))'
)


class BadFilter(InputError):
    en = "The filter '{text}' can't be understood at '{at}': {reason}."
    zh = "无法理解筛选条件“{text}”中的“{at_zh}”：{reason_zh}。"


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
    try:
        found = _either(view, words)
    except RecursionError as error:
        raise words.bad(text[:20], "it has too many brackets in each other", "括号嵌套过多") from error
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
    if colon and key in KEYS and value:
        try:
            return KEYS[key](view, value)
        except BadValue as error:
            raise words.bad(token, *error.reasons) from error
    word = token.replace('"', "")
    if colon and key.isalpha() and value and not token.startswith('"') and view.category(canonical(word)) is None:
        if key in KEYS:
            raise words.bad(token, "a value is missing", "缺少值")
        close = nearest(key, list(KEYS))
        if len(key) > 2:
            raise words.bad(
                token, f"there is no '{key}:'; did you mean '{close}:'", f"没有“{key}:”；您是否想写“{close}:”"
            )
    name = canonical(word)
    if "*" in name or "?" in name:
        return view.hits(lambda tag, _: matches(name, tag)) > 0
    return view.mask(name) if view.category(name) is not None else text_in(view, word)
