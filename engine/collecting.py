"""How a long-lived process collects cyclic garbage: what it has loaded is not walked again and again."""

from __future__ import annotations

import gc
import time

THRESHOLDS = (20_000, 20, 20)  # a prompt of 5,000 nodes is 20,000 containers, all of them needed


def settle() -> None:
    """Call it once when a process has imported what it runs on. A full collection then costs what jobs have made, and
    not 0.1 s and more for a million objects of libraries."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


class Collector:
    """Full collections between jobs, not too often: results that hang together in circles hold tensors."""

    def __init__(self, every: float = 10.0) -> None:
        self._every = every
        self._last = time.monotonic()

    def after_job(self) -> bool:
        """Collect if it is time. True when it did."""
        if time.monotonic() - self._last < self._every:
            return False
        gc.collect()
        self._last = time.monotonic()
        return True
