"""Regular expressions that a person or a client wrote: each search has a deadline, each result a size.

A pattern can take time that grows without bound in the text's length, and a thread of Python that searches can't be
stopped from outside. `regex` (the successor of `re`, with the same syntax and more) looks at the clock itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import regex

from engine.errors import GraphError

LONGEST = 1_000_000  # characters of a text, and of what a replacement makes of it
SECONDS = 3.0


class BadPattern(GraphError):
    en = "'{pattern}' is not a regular expression: {reason}."
    zh = "“{pattern}”不是有效的正则表达式：{reason}。"


class TextTooLong(GraphError):
    en = "The text has {count} characters; a regular expression is tried on at most {most}."
    zh = "文本有 {count} 个字符；正则表达式最多处理 {most} 个字符。"


class ResultTooLong(GraphError):
    en = "Replacing '{pattern}' makes more than {most} characters. Make the text or the replacement shorter."
    zh = "替换“{pattern}”后的文本超过 {most} 个字符。请缩短文本或替换内容。"


class PatternTooSlow(GraphError):
    en = (
        "'{pattern}' was not through with the text after {seconds:g} seconds. Repeats within repeats, as in (a+)+, "
        "take time that doubles with each character: write the pattern without them."
    )
    zh = "“{pattern}”在 {seconds:g} 秒内未处理完文本。嵌套重复（如 (a+)+）的耗时会随字符数成倍增长：请改写该表达式。"


@dataclass(frozen=True)
class Expression:
    """A compiled pattern. Its methods raise TextTooLong, PatternTooSlow."""

    pattern: str
    compiled: regex.Pattern[str]
    seconds: float = SECONDS

    def found(self, text: str) -> bool:
        return next(self.finds(text), None) is not None

    def finds(self, text: str) -> Iterator[regex.Match[str]]:
        if len(text) > LONGEST:
            raise TextTooLong(count=len(text), most=LONGEST)
        try:
            # concurrent: other threads go on while it searches
            yield from self.compiled.finditer(text, timeout=self.seconds, concurrent=True)
        except TimeoutError as error:
            raise PatternTooSlow(pattern=self.pattern, seconds=self.seconds) from error

    def replaced(self, text: str, replacement: str, count: int = 0) -> str:
        r"""Finds become `replacement`, in which \1 and \g<name> are groups; at most `count`, all of them at 0. Raises
        BadPattern for a replacement with a group that is not there, ResultTooLong."""
        parts, end, size = [], 0, 0
        deadline = time.monotonic() + self.seconds
        for number, match in enumerate(self.finds(text), 1):
            try:
                new = match.expand(replacement)
            except (regex.error, IndexError) as error:
                raise BadPattern(pattern=replacement, reason=str(error)) from error
            parts += [text[end : match.start()], new]
            end, size = match.end(), size + len(new)
            if size > LONGEST:
                raise ResultTooLong(pattern=self.pattern, most=LONGEST)
            if time.monotonic() > deadline:
                raise PatternTooSlow(pattern=self.pattern, seconds=self.seconds)
            if number == count:
                break
        return "".join([*parts, text[end:]])


def expression(pattern: str, *, ignore_case: bool = False, multiline: bool = False, dotall: bool = False) -> Expression:
    """Raises BadPattern."""
    wished = ((ignore_case, regex.IGNORECASE), (multiline, regex.MULTILINE), (dotall, regex.DOTALL))
    flags = sum(int(flag) for wish, flag in wished if wish)
    try:
        return Expression(pattern, regex.compile(pattern, flags))
    except (regex.error, OverflowError, RecursionError) as error:
        raise BadPattern(pattern=pattern, reason=str(error)) from error
