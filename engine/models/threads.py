"""How many of torch's threads work on a model on the CPU: small models get one.

Where an operation takes microseconds, waking other threads for it costs more than they do: a training step of the
bundled model took 0.82 CPU seconds with two threads and 0.40 with one, in no less time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

SMALL = 64 << 20  # bytes of weights; SD 1.x has fifty times as much


@contextmanager
def threads_for(module: nn.Module) -> Iterator[None]:
    """One thread for a small module while the block lasts; as many as there were for others."""
    before = torch.get_num_threads()
    if before == 1 or sum(p.nbytes for p in module.parameters()) >= SMALL:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
