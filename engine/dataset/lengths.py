"""How long the captions of a whole dataset are in tokens, fast enough for a filter.

The tokens of a tag as it is written are counted once and added up by picture. Rules that make one tag depend on another
need each caption itself; that takes seconds for 10,000 pictures. A sign and the comma behind it are one token, so where
the last tag ends in a sign the sum is one too small.
"""

from __future__ import annotations

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
    alone = rules.model_copy(update={"trigger_word": ""})
    first = {rules.trigger_word} if rules.trigger_word else set()

    def weigh(name: str, category: str) -> float:
        written = [word for word in tag_list(alone, [Tag(name, category)]) if word not in first]
        return sum(count_tokens(encoder, word + separator) for word in written)

    texts = [" ".join(text.split()) if rules.parts != "tags" else "" for text in view.captions()]
    tags = view.sums(weigh) if rules.parts != "caption" else np.zeros(len(texts))
    prose = np.array([count_tokens(encoder, text + separator) if text else 0 for text in texts], float)
    trigger = np.zeros(len(texts))
    if rules.trigger_word:
        told = [bool(text) and mentions(text, rules.trigger_word) for text in texts]
        trigger[~np.array(told, bool)] = count_tokens(encoder, rules.trigger_word + separator)
    total = tags + prose + trigger
    return np.maximum(0, total - comma * (total > 0)).astype(int)
