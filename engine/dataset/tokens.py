"""How many tokens a caption has for a text encoder: those of the text, without start, end and padding. Torch-free."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

from engine.families.parts.t5_tokenizer import t5_tokenizer
from engine.families.parts.tokenizer import clip_tokenizer


class _Tokenizer(Protocol):
    def encode(self, text: str) -> list[int]: ...


TOKENIZERS: dict[str, Callable[[], _Tokenizer]] = {"clip": clip_tokenizer, "t5": t5_tokenizer}


def count_tokens(encoder: str, text: str) -> int:
    """Tokens of a text for one of TOKENIZERS. No token goes over white space, so each word is counted once."""
    words = text.split()
    if len(text) != sum(map(len, words)) + max(0, len(words) - 1):
        return len(TOKENIZERS[encoder]().encode(text))  # T5 counts a second space, and one at the end
    return sum(_count(encoder, word) for word in words)


@lru_cache(maxsize=200_000)
def _count(encoder: str, word: str) -> int:
    encode = TOKENIZERS[encoder]().encode  # alone or last, a word of zero-width spaces is a token of T5's
    return len(encode(f"a {word} a")) - len(encode("a a"))
