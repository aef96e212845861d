"""A small byte-pair vocabulary with CLIP's conventions, learned from the demo world's captions.

Every byte is in it, so any text in any script becomes tokens and none is unknown.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from transformers import CLIPTokenizer

from studio.demo.making.samples import sample

MAX_LENGTH = 77
_MERGES = 420
# Words of ordinary prompts, so that they do not fall apart into letters.
_COMMON = """the of in is it and with at an to for from this that background plain simple image picture photo drawing
style art girl boy cat dog bird fish tree house sun sky night day light dark grey gray brown cyan teal magenta shape
shapes solo smile smiling face eyes body head logo creature pixel flat cartoon cute big tiny huge little very middle
center centre side upper lower masterpiece best quality worst low bad blurry text watermark ghost robot colour color
colorful"""


@dataclass(frozen=True)
class Vocabulary:
    """Token ids and merges as in CLIP's vocab.json and merges.txt."""

    vocab: dict[str, int]
    merges: list[str]

    def tokenizer(self) -> CLIPTokenizer:
        """transformers' tokenizer; pads with <|endoftext|> as SD 1.x does."""
        pairs: Any = [tuple(merge.split(" ")) for merge in self.merges]
        return CLIPTokenizer(vocab=self.vocab, merges=pairs, model_max_length=MAX_LENGTH, pad_token="<|endoftext|>")


def learn_vocabulary(captions: int = 6000, seed: int = 0) -> Vocabulary:
    """Byte-pair merges by frequency (Sennrich et al. 2016) over captions and some common words."""
    rng = random.Random(seed)
    counts: Counter[str] = Counter(_COMMON.split() * 40)
    for _ in range(captions):
        counts.update(sample(rng).caption(rng).replace(",", " ").split())
    # Rare words are mostly nonsense ones: learning merges from them would waste the vocabulary.
    words = {(*word[:-1], word[-1] + "</w>"): count for word, count in counts.items() if count >= 8}
    merges: list[tuple[str, str]] = []
    while len(merges) < _MERGES:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        words = {_merged(word, best): count for word, count in words.items()}
    alphabet = _byte_alphabet()
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), *(a + b for a, b in merges)]
    tokens = list(dict.fromkeys([*tokens, "<|startoftext|>", "<|endoftext|>"]))
    return Vocabulary({token: i for i, token in enumerate(tokens)}, [f"{a} {b}" for a, b in merges])


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    for piece in word:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return tuple(out)


def _byte_alphabet() -> list[str]:
    """GPT-2's printable character for each byte, in the order of the bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]
