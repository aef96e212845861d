"""A batch through a reader, in halves where the device has no room for it. Runs in the worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from engine.models.manager import ModelManager, NoRoom
from taggers.reader import Found, Reader
from taggers.tool import About


def read_within(reader: Reader, models: ModelManager, prepared: Sequence[Any], about: Sequence[About]) -> list[Found]:
    """In order. The reader's batches are smaller from then on: what did not fit once is not tried every time."""
    try:
        return list(reader.read(prepared, about))
    except (NoRoom, MemoryError, torch.OutOfMemoryError):
        if len(prepared) == 1:
            raise
    models.trim(0)  # what was allocated for the attempt
    half = reader.batch_size = len(prepared) // 2
    first = read_within(reader, models, prepared[:half], about[:half])
    return first + read_within(reader, models, prepared[half:], about[half:])
