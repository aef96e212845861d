"""EasyCache (https://arxiv.org/abs/2507.02860): a model is not asked again while its answer would hardly change.

From one evaluation to the next an answer v changes by k |change of the input x|, and k itself hardly changes. So k of
the last two evaluations says how wrong v - x of the last one has become; while the sum of that stays below a
threshold, v = x + that difference.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from engine.families.parts.patch import Evaluation, Patch

log = logging.getLogger(__name__)


def easy_cache(threshold: float, start_sigma: float, end_sigma: float, verbose: bool = False) -> Patch:
    """Of each call of the model, as in the paper."""
    return Patch("EasyCache", model=Reuse("EasyCache", threshold, start_sigma, end_sigma, verbose))


def lazy_cache(threshold: float, start_sigma: float, end_sigma: float, verbose: bool = False) -> Patch:
    """The same over the guided estimate: it works for any guidance, and is coarser."""
    return Patch("LazyCache", rule=Reuse("LazyCache", threshold, start_sigma, end_sigma, verbose))


@dataclass
class _Last:
    x: Tensor = field(repr=False)
    answer: Tensor = field(repr=False)
    difference: Tensor = field(repr=False)  # answer - x of the last evaluation
    rate: float | None = None  # k
    error: float = 0.0


class Reuse:
    """Between start_sigma and end_sigma. One run after another; `last` is what it knows of the one under way."""

    def __init__(self, title: str, threshold: float, start_sigma: float, end_sigma: float, verbose: bool) -> None:
        self.title = title
        self.threshold = threshold
        self.start_sigma = start_sigma
        self.end_sigma = end_sigma
        self.verbose = verbose
        self.sigmas: Sequence[float] = ()
        self.last: dict[Hashable, _Last] = {}

    def __call__(self, evaluation: Evaluation, run: Callable[[], Tensor]) -> Tensor:
        if self.sigmas is not evaluation.sigmas:
            self.sigmas, self.last = evaluation.sigmas, {}
        x, last = evaluation.x, self.last.get(evaluation.key)
        if last is None or last.x.shape != x.shape:
            return self._first(evaluation.key, x, run())
        change = _size(x - last.x)
        if last.rate is not None and self.end_sigma <= evaluation.sigma <= self.start_sigma:
            last.error += last.rate * change / max(_size(last.answer), 1e-12)
            if last.error < self.threshold:
                if self.verbose:
                    log.info("%s: reused at sigma %.4g (error %.3g)", self.title, evaluation.sigma, last.error)
                last.x, last.answer = x, x + last.difference
                return last.answer
        answer = run()
        last.rate = _size(answer - last.answer) / change if change else last.rate
        last.x, last.answer, last.difference, last.error = x, answer, answer - x, 0.0
        return answer

    def _first(self, key: Hashable, x: Tensor, answer: Tensor) -> Tensor:
        self.last[key] = _Last(x, answer, answer - x)
        return answer


def _size(tensor: Tensor) -> float:
    return float(tensor.abs().mean())
