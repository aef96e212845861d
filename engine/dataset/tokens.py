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
    """Tokens of a text for one of TOKENIZERS. Captions share tags, so each part between commas is counted once."""
    parts = text.split(", ")
    if encoder != "clip" or not all(part[:1].isalnum() and part[-1:].isalnum() for part in parts):
        return _count(encoder, text)  # signs at a comma are one token with it, T5 counts the space before a word
    return sum(_count(encoder, part) for part in parts) + (len(parts) - 1) * _count(encoder, ",")


@lru_cache(maxsize=100_000)
def _count(encoder: str, text: str) -> int:
    return len(TOKENIZERS[encoder]().encode(text))
