"""Rules that turn a tagger's probabilities into tags: which scores are kept, and where MCut cuts. Numbers only."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from engine.dataset.records import RATING, Reading
from taggers.spec import Vocabulary

FLOOR = 0.05  # scores up to this are not stored; thresholds can be moved down to it without running again
MCUT_FLOOR: Mapping[str, float] = {"character": 0.15}


def mcut(scores: np.ndarray) -> float:
    """Maximum cut (Largeron et al. 2012): the middle of the largest gap between neighbouring sorted scores.

    Nothing to cut: the one score itself, or 1.
    """
    ordered = np.sort(scores)[::-1]
    if len(ordered) < 2:
        return float(ordered[0]) if len(ordered) else 1.0
    gap = int(np.argmax(ordered[:-1] - ordered[1:]))
    return float((ordered[gap] + ordered[gap + 1]) / 2)


def reading(scores: np.ndarray, words: Vocabulary, floor: float = FLOOR) -> Reading:
    """One picture's scores (tags,) as a reading: best first inside the whole, ratings all, others above `floor`."""
    categories = np.array(words.categories)
    kept = np.flatnonzero((scores > floor) | (categories == RATING))
    order = kept[np.argsort(-scores[kept], kind="stable")]
    cuts = {}
    for name in dict.fromkeys(words.categories):
        if name != RATING:
            cuts[name] = round(max(mcut(scores[categories == name]), MCUT_FLOOR.get(name, 0.0)), 6)
    return Reading([(words.names[i], words.categories[i], float(scores[i])) for i in order], cuts)
