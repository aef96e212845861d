"""How the pictures of a dataset are spread over size, shape, number of tags and caption length.

Each bar has a filter that shows its pictures. No picture is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.dataset.export import rules_in
from engine.dataset.lengths import token_counts
from engine.dataset.records import RATING
from engine.dataset.view import View

_SIDES = (256, 512, 768, 1024, 1536, 2048)
_RATIOS = ((0.0, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 1.12), (1.12, 1.43), (1.43, 2.0), (2.0, np.inf))
_TAGS = (1, 5, 10, 20, 40, 80)
_TOKENS = (1, 20, 40, 76, 151, 226)  # CLIP takes 75 at a time


@dataclass(frozen=True)
class Bar:
    title: str
    n: int
    filter: str


def charts(view: View) -> dict[str, list[Bar]]:
    """Bars by chart: sides, ratios, tags, tokens. Charts without any picture are left out."""
    pictures = view.pictures()
    if not pictures:
        return {}
    sides = np.array([min(p.width, p.height) for p in pictures])
    ratios = np.array([p.width / max(1, p.height) for p in pictures])
    found = {
        "sides": _steps(sides, _SIDES, "res"),
        "ratios": [_ratio(ratios, low, high) for low, high in _RATIOS],
        "tags": _steps(view.hits(lambda _, category: category != RATING), _TAGS, "tags"),
        "tokens": _steps(token_counts(view, rules_in(view.store), "clip"), _TOKENS, "tokens"),
    }
    return {name: [bar for bar in bars if bar.n] for name, bars in found.items()}


def _steps(values: np.ndarray, steps: Sequence[int], key: str) -> list[Bar]:
    """Whole numbers under the first step, between each two, and from the last on."""
    edges = [0, *steps]
    bars = []
    for low, high in zip(edges, [*steps, None], strict=True):
        inside = (values >= low) & (values < high) if high is not None else values >= low
        last = "" if high is None else str(high - 1)
        title = f"≥ {low}" if high is None else str(low) if high - 1 == low else f"{low} – {last}"
        words = f"{key}:>={low}" + ("" if high is None else f" {key}:<{high}")
        bars.append(Bar(title, int(np.count_nonzero(inside)), words))
    return bars


def _ratio(values: np.ndarray, low: float, high: float) -> Bar:
    inside = int(np.count_nonzero((values >= low) & (values < high)))
    if low == 0.0:
        return Bar(f"< {high:g}", inside, f"ar:<{high:g}")
    if high == np.inf:
        return Bar(f"≥ {low:g}", inside, f"ar:>={low:g}")
    return Bar(f"{low:g} – {high:g}", inside, f"ar:>={low:g} ar:<{high:g}")
