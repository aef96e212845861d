"""Progress of long work: what a job tells about itself, and the one function work is handed to tell it.

Work gets `Report` objects through a `ProgressSink` and knows nothing of pipes, stores or pages.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Progress:
    """step of total in a phase; `eta` in seconds, None while unknown. `metrics` are numbers to plot or show."""

    step: int = 0
    total: int = 0
    phase: str = ""
    text: str = ""
    eta: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def fraction(self) -> float:
        return min(1.0, self.step / self.total) if self.total else 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class ProgressSink(Protocol):
    """`progress(step, total, text, **metrics)`; raises errors.Cancelled when the job was cancelled."""

    def __call__(self, step: int, total: int, text: str = "", *, phase: str = "", **metrics: float) -> None: ...


class EtaClock:
    """Seconds left, from an exponential mean of the time between steps. A new phase or a step back starts it anew."""

    def __init__(self, smoothing: float = 0.3) -> None:
        self._smoothing = smoothing
        self._phase: str | None = None
        self._last: tuple[int, float] | None = None
        self._per_step: float | None = None

    def update(self, step: int, total: int, phase: str, now: float | None = None) -> float | None:
        now = time.monotonic() if now is None else now
        if phase != self._phase or (self._last and step < self._last[0]):
            self._phase, self._last, self._per_step = phase, None, None
        if self._last and step > self._last[0]:
            sample = (now - self._last[1]) / (step - self._last[0])
            old = self._per_step
            self._per_step = sample if old is None else old + self._smoothing * (sample - old)
        if self._last is None or step > self._last[0]:
            self._last = (step, now)
        if self._per_step is None or not total:
            return None
        return max(0.0, (total - step) * self._per_step)


def silent(step: int, total: int, text: str = "", *, phase: str = "", **metrics: float) -> None:
    """A ProgressSink for tests and scripts that show nothing."""
