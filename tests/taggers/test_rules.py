from __future__ import annotations

import numpy as np
import pytest

from taggers.rules import mcut, reading
from taggers.spec import Vocabulary


@pytest.mark.parametrize(
    ("scores", "cut"),
    [
        ([0.99, 0.95, 0.9, 0.3, 0.1, 0.05], 0.6),
        ([0.05, 0.9], 0.475),
        ([0.4], 0.4),
        ([], 1.0),
        ([0.5, 0.5, 0.5], 0.5),
    ],
)
def test_mcut_cuts_in_the_middle_of_the_largest_gap(scores: list[float], cut: float) -> None:
    assert mcut(np.array(scores)) == pytest.approx(cut, abs=1e-12)


def test_a_reading_keeps_ratings_and_what_is_over_the_floor_best_first() -> None:
    words = Vocabulary(("rating:safe", "a", "b", "c"), ("rating", "general", "general", "character"))
    found = reading(np.array([0.01, 0.2, 0.9, 0.05], np.float32), words, floor=0.05)
    assert [(name, category, round(score, 4)) for name, category, score in found.tags] == [
        ("b", "general", 0.9),
        ("a", "general", 0.2),
        ("rating:safe", "rating", 0.01),
    ]


def test_mcut_of_characters_has_a_floor() -> None:
    words = Vocabulary(("a", "b", "x", "y"), ("general", "general", "character", "character"))
    found = reading(np.array([0.1, 0.02, 0.1, 0.02], np.float32), words)
    assert found.cuts == {"general": 0.06, "character": 0.15}
