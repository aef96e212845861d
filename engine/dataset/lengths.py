"""How long the captions of a whole dataset are in tokens, fast enough for a filter.

The tokens of a tag as it is written are counted once and added up by picture. Rules that make one tag depend on another
need each caption itself; that takes seconds for 10,000 pictures. A sign and the comma behind it are one token, so where
the last tag ends in a sign the sum is one too small.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from engine.dataset.captions import CaptionRules, Tag, caption, mentions, tag_list
from engine.dataset.tokens import count_tokens
from engine.dataset.view import View


def token_counts(view: View, rules: CaptionRules, encoder: str) -> np.ndarray:
    """Tokens of every picture's caption for a text encoder, by place."""
    if rules.max_tags or rules.max_tokens or rules.aliases or rules.replacements or rules.implications:
        pairs = zip(view.pictures(), view.captions(), strict=True)
        return np.array([count_tokens(encoder, caption(rules, view.tags(p.id), text)) for p, text in pairs], int)
    separator = rules.separator.rstrip()
    comma = count_tokens(encoder, separator)
    words = rules.model_dump_json()

    def weigh(name: str, category: str) -> float:
        return _tokens_of(words, encoder, name, category)

    texts = [" ".join(text.split()) if rules.parts != "tags" else "" for text in view.captions()]
    tags = view.sums(weigh) if rules.parts != "caption" else np.zeros(len(texts))
    prose = np.array([count_tokens(encoder, text + separator) if text else 0 for text in texts], float)
    trigger = np.zeros(len(texts))
    if rules.trigger_word:
        told = [bool(text) and mentions(text, rules.trigger_word) for text in texts]
        trigger[~np.array(told, bool)] = count_tokens(encoder, rules.trigger_word + separator)
    total = tags + prose + trigger
    return np.maximum(0, total - comma * (total > 0)).astype(int)


@lru_cache(maxsize=200_000)
def _tokens_of(rules: str, encoder: str, name: str, category: str) -> int:
    """Tokens of one tag as it is written, with what separates it from the next; 0 where it is left out."""
    told = _read(rules)
    written = tag_list(told, [Tag(name, category)])
    return sum(count_tokens(encoder, word + told.separator.rstrip()) for word in written)


@lru_cache(maxsize=8)
def _read(rules: str) -> CaptionRules:
    return CaptionRules.model_validate_json(rules)
