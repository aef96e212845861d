"""T5's tokenizer: unigram pieces of SentencePiece (Kudo 2018), bundled in configs/tokenizers/t5. Torch-free."""

from __future__ import annotations

import gzip
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.families.parts.tokenizer import BadTokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE = Path(__file__).resolve().parents[3] / "configs" / "tokenizers" / "t5" / "tokenizer.json.gz"


class T5Tokenizer:
    """Text to token ids, without the end. There is no start; after the end comes padding."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.end, self.pad = 1, 0

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids


@lru_cache(maxsize=1)
def t5_tokenizer() -> T5Tokenizer:
    """The one of T5 v1.0 and v1.1: 32,100 tokens."""
    from tokenizers import Tokenizer

    return T5Tokenizer(Tokenizer.from_buffer(gzip.decompress(FILE.read_bytes())))


def t5_tokenizer_from_json(text: str, path: Path) -> T5Tokenizer:
    """From a model's own tokenizer.json, whose </s> is 1 and <pad> 0 as T5's. Raises BadTokenizer."""
    from tokenizers import Tokenizer

    try:
        tokenizer: Any = Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exceptions
        raise BadTokenizer(path=path, reason=str(error)) from error
    if (tokenizer.token_to_id("<pad>"), tokenizer.token_to_id("</s>")) != (0, 1):
        raise BadTokenizer(path=path, reason="its <pad> and </s> are not the tokens 0 and 1")
    return T5Tokenizer(tokenizer)
