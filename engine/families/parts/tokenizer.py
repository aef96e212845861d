"""CLIP's tokenizer: lower-cased words and signs cut into byte pairs (Radford et al. 2021). Torch-free.

The vocabulary of OpenAI's CLIP is bundled (configs/tokenizers/clip); any other comes as {"vocab", "merges"}.
"""

from __future__ import annotations

import gzip
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from engine.errors import FileError

START, END = "<|startoftext|>", "<|endoftext|>"
MERGES = Path(__file__).resolve().parents[3] / "configs" / "tokenizers" / "clip" / "merges.txt.gz"
_CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


class BadTokenizer(FileError):
    en = "The tokenizer in {path} can't be used: {reason}."
    zh = "无法使用 {path} 中的分词器：{reason}。"


class ClipTokenizer:
    """Text to token ids, without start and end."""

    def __init__(self, vocab: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> None:
        self.vocab = dict(vocab)
        self.start, self.end = self.vocab[START], self.vocab[END]
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._bytes = _byte_alphabet()
        self._cache: dict[str, tuple[int, ...]] = {}

    def __len__(self) -> int:
        return len(self.vocab)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text. Any text has some: unknown characters fall apart into bytes."""
        return [token for piece in _pieces(_clean(text)) for token in self._encode_piece(piece)]

    def _encode_piece(self, piece: str) -> tuple[int, ...]:
        found = self._cache.get(piece)
        if found is None:
            if len(self._cache) > 50_000:
                self._cache.clear()
            word = piece if piece in (START, END) else "".join(self._bytes[b] for b in piece.encode("utf-8"))
            found = self._cache[piece] = tuple(self.vocab[token] for token in self._merge(word))
        return found

    def _merge(self, word: str) -> list[str]:
        """Join the pair that was learned first, until none is left."""
        if word in (START, END):
            return [word]
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            pair = min(pairwise(parts), key=lambda p: self._ranks.get(p, len(self._ranks)))
            if pair not in self._ranks:
                break
            joined: list[str] = []
            for part in parts:
                if joined and (joined[-1], part) == pair:
                    joined[-1] += part
                else:
                    joined.append(part)
            parts = joined
        return parts


@lru_cache(maxsize=1)
def clip_tokenizer() -> ClipTokenizer:
    """The one of OpenAI's CLIP: 49,408 tokens."""
    lines = gzip.decompress(MERGES.read_bytes()).decode("utf-8").splitlines()[1:]
    merges = [(first, second) for first, _, second in (line.partition(" ") for line in lines)]
    letters = list(_byte_alphabet().values())
    tokens = [*letters, *(c + "</w>" for c in letters), *(a + b for a, b in merges), START, END]
    return ClipTokenizer({token: i for i, token in enumerate(tokens)}, merges)


def tokenizer_from_json(text: str, path: Path) -> ClipTokenizer:
    """From the metadata `easel.tokenizer`: {"vocab": {token: id}, "merges": ["a b", ...] or [["a", "b"], ...]}."""
    try:
        data = json.loads(text)
        vocab = {str(token): int(i) for token, i in data["vocab"].items()}
        merges = [_pair(merge) for merge in data["merges"]]
        missing = [t for t in (START, END, *_byte_alphabet().values()) if t not in vocab]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadTokenizer(path=path, reason=f"{type(error).__name__}: {error}") from error
    if missing:
        raise BadTokenizer(path=path, reason=f"its vocabulary lacks {missing[0]!r} and {len(missing) - 1} others")
    return ClipTokenizer(vocab, merges)


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second


def _byte_alphabet() -> dict[int, str]:
    """A printable character for each byte, in the order of the vocabulary: printable bytes first, as themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def _clean(text: str) -> str:
    """Composed (NFC), without control characters, lower case, CJK characters each a word of its own."""
    kept = (c for c in unicodedata.normalize("NFC", text) if c.isspace() or unicodedata.category(c)[0] != "C")
    return "".join(f" {c} " if _is_cjk(ord(c)) else c for c in kept if c != "\ufffd").lower()


def _pieces(text: str) -> Iterable[str]:
    """Runs of letters, single digits, runs of other signs; English contractions; the two special tokens."""
    at = 0
    while at < len(text):
        end = at + 1
        special = next((s for s in (START, END, *_CONTRACTIONS) if text.startswith(s, at)), None)
        if special:
            end = at + len(special)
        elif text[at].isspace():
            at = end
            continue
        elif (kind := _kind(text[at])) != "N":
            while end < len(text) and _kind(text[end]) == kind:
                end += 1
        yield text[at:end]
        at = end


def _kind(character: str) -> str:
    """Letter, number, space, or any other sign."""
    first = unicodedata.category(character)[0]
    return first if first in "LN" else " " if character.isspace() else "S"


def _is_cjk(code: int) -> bool:
    return (
        0x4E00 <= code <= 0x9FFF
        or 0x3400 <= code <= 0x4DBF
        or 0x20000 <= code <= 0x2CEAF
        or 0xF900 <= code <= 0xFAFF
        or 0x2F800 <= code <= 0x2FA1F
    )
