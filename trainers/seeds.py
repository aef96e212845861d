"""Randomness without state: every number a run draws is a function of its seed and of what it is drawn for.

So a resumed run draws what an uninterrupted one draws, and sample pictures or other jobs in between change nothing.
"""

from __future__ import annotations

import hashlib
import random

import torch


def derived(seed: int, *what: object) -> int:
    """63 bits from the seed and a purpose, such as derived(seed, "noise", step, sample)."""
    words = "/".join(map(str, (seed, *what)))
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *what: object) -> torch.Generator:
    """A CPU generator of its own: the same numbers on every device."""
    return torch.Generator().manual_seed(derived(seed, *what))


def dice(seed: int, *what: object) -> random.Random:
    return random.Random(derived(seed, *what))
