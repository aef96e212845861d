"""Prompts as ComfyUI reads them: `(weight:1.3)`, escapes, `embedding:name`, chunks of 77 tokens. Torch-free.

`(text)` multiplies the weight by 1.1, `(text:1.3)` sets it, whatever it was outside. A backslash makes a parenthesis an
ordinary sign. Square brackets and words such as BREAK mean nothing.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from engine.families.base import Prompt
from engine.families.parts.tokenizer import ClipTokenizer

EMBEDDING = "embedding:"
LONG_WORD = 8  # tokens: a shorter word is never cut in two by the end of a chunk
DEEPEST = 100  # parentheses inside one another; deeper ones are ordinary signs
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Token:
    """A token id, or a vector of a textual inversion in its place."""

    id: int
    weight: float = 1.0
    vector: Any = None


Text = str | Sequence[Sequence[Token]]  # a prompt, or its tokens in chunks


class Tokenizer(Protocol):
    end: int

    def encode(self, text: str) -> list[int]: ...


Embed = Callable[[str], Sequence[Any] | None]  # the vectors of a textual inversion by name, None where there is none


def text_for(text: Prompt, name: str) -> Text:
    """What one encoder is given: a text, or tokens in chunks."""
    return text if isinstance(text, str) else text.get(name, "")


def chunks_of(
    text: str | Sequence[Sequence[Token]],
    tokenizer: ClipTokenizer,
    embed: Embed,
    length: int = 77,
    pad: int | None = None,
) -> list[list[Token]]:
    """A prompt as chunks of `length` tokens: start, up to 75 tokens, end, and `pad` (the end again when None). At least
    one."""
    if not isinstance(text, str):
        return [list(chunk) for chunk in text]
    pad = tokenizer.end if pad is None else pad
    chunks: list[list[Token]] = []
    chunk = [Token(tokenizer.start)]
    for word in _words(text, tokenizer, embed):
        rest = word
        while len(chunk) + len(rest) > length - 1:
            room = length - 1 - len(chunk)
            taken = room if len(word) >= LONG_WORD else 0
            chunks.append(_padded([*chunk, *rest[:taken]], tokenizer, length, pad))
            chunk, rest = [Token(tokenizer.start)], rest[taken:]
        chunk += rest
    return [*chunks, _padded(chunk, tokenizer, length, pad)]


def tokens_of(text: Text, tokenizer: Tokenizer, embed: Embed) -> list[Token]:
    """A prompt in one run, without start, end and padding: for encoders whose text has no fixed length."""
    if not isinstance(text, str):
        run = [token for chunk in text for token in chunk]
        ends = [place for place, token in enumerate(run) if token.id == tokenizer.end and token.vector is None]
        return run[: ends[0]] if ends else run
    return [token for word in _words(text, tokenizer, embed) for token in word]


def weighted(text: str) -> list[tuple[str, float]]:
    """A prompt as runs of text with their weights; escapes are resolved."""
    return [(_plain(run), weight) for run, weight in _weighted(_escaped(text), 1.0)]


def _words(text: str, tokenizer: Tokenizer, embed: Embed) -> Iterator[list[Token]]:
    """Tokens word by word; a textual inversion is one word."""
    for run, weight in weighted(text):
        for word in re.split(r"[ \n]", run):
            rest = word
            if word.startswith(EMBEDDING):
                name = word[len(EMBEDDING) :]
                vectors = embed(name)
                if vectors is None and name != name.strip(","):
                    vectors = embed(name.strip(","))
                    rest = name[len(name.strip(",")) :]
                else:
                    rest = ""
                if vectors is None:
                    log.warning("the embedding %r does not exist and is left out", name)
                else:
                    yield [Token(tokenizer.end, weight, vector) for vector in vectors]
            if rest:
                yield [Token(token, weight) for token in tokenizer.encode(rest)]


def _padded(chunk: list[Token], tokenizer: ClipTokenizer, length: int, pad: int) -> list[Token]:
    ended = [*chunk, Token(tokenizer.end)]
    return ended + [Token(pad)] * (length - len(ended))


def _escaped(text: str) -> str:
    return text.replace("\0", "").replace(r"\(", "\0\1").replace(r"\)", "\0\2")


def _plain(text: str) -> str:
    return text.replace("\0\1", "(").replace("\0\2", ")")


def _weighted(text: str, weight: float, depth: int = 0) -> Iterator[tuple[str, float]]:
    for part in _parts(text):
        if depth < DEEPEST and len(part) > 1 and part[0] == "(" and part[-1] == ")":
            inner, own = part[1:-1], weight * 1.1
            body, colon, number = inner.rpartition(":")
            if colon and body and (given := _number(number)) is not None:
                inner, own = body, given
            yield from _weighted(inner, own, depth + 1)
        elif part:
            yield part, weight


def _parts(text: str) -> Iterator[str]:
    """Cut at the outermost parentheses: "a (b (c)) d" -> "a ", "(b (c))", " d". What is never closed stays as it is."""
    depth, start = 0, 0
    for at, sign in enumerate(text):
        if sign == "(":
            if depth == 0:
                yield text[start:at]
                start = at
            depth += 1
        elif sign == ")" and depth:
            depth -= 1
            if depth == 0:
                yield text[start : at + 1]
                start = at + 1
    yield text[start:]


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
