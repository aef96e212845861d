from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from engine.models.device import CpuDevice
from engine.models.manager import ModelManager
from taggers.halving import read_within
from taggers.tool import About, Answer


class Reader:
    """Has room for `room` pictures at a time."""

    title, provider, wants_words, at_least = "small", "", False, None

    def __init__(self, room: int, error: Exception) -> None:
        self.room, self.error, self.batch_size = room, error, 8
        self.tried: list[int] = []

    def origin(self) -> Any: ...

    def prepare(self, image: Any) -> Any: ...

    def close(self) -> None: ...

    def read(self, prepared: Sequence[Any], about: Sequence[About]) -> list[Answer]:
        self.tried.append(len(prepared))
        if len(prepared) > self.room:
            raise self.error
        return [Answer(f"{value} {one.name}") for value, one in zip(prepared, about, strict=True)]


def read(reader: Reader) -> list[str]:
    found = read_within(reader, ModelManager(CpuDevice()), range(8), [About(str(n)) for n in range(8)])
    return [answer.text for answer in found if isinstance(answer, Answer)]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_a_batch_without_room_is_read_in_parts_and_the_next_is_smaller(error: Exception) -> None:
    reader = Reader(2, error)
    assert read(reader) == [f"{n} {n}" for n in range(8)]
    assert reader.batch_size == 2 and reader.tried == [8, 4, 2, 2, 4, 2, 2]


@pytest.mark.parametrize(("room", "error"), [(0, MemoryError("full")), (2, RuntimeError("shapes differ"))])
def test_what_smaller_batches_do_not_help_against_is_told(room: int, error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        read(Reader(room, error))
