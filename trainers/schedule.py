"""Learning rate by step, as a pure function: nothing to save and nothing to resume."""

from __future__ import annotations

import math
from typing import Literal

Scheduler = Literal["constant", "linear", "cosine"]


def lr_factor(step: int, steps: int, scheduler: Scheduler, warmup: int = 0) -> float:
    """What the learning rate is multiplied by at `step` (0-based) of `steps`.

    It rises over `warmup` steps to 1 (step 0 has 1 / warmup), then stays or falls so that step `steps` would have 0.
    """
    if step < warmup:
        return (step + 1) / warmup
    if scheduler == "constant":
        return 1.0
    done = (step - warmup) / max(1, steps - warmup)
    return 1.0 - done if scheduler == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
