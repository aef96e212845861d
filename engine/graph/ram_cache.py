"""Results of many prompts, as long as the machine has memory to spare. When it has not, what is large and old goes.

The idea and the weight of age are those of ComfyUI's RAM pressure cache: a result counts 1.3 times its bytes for every
prompt since it was used last.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from engine import host_memory
from engine.graph.cache import Entry

AGEING = 1.3
SMALLEST = 4096  # bytes that any entry counts at least
MOST_ENTRIES = 100_000
CHECK_BYTES = 16 * 2**20  # results that may come in between two looks at the machine's memory
GIB = 2**30


@dataclass(slots=True)
class _Held:
    entry: Entry
    nbytes: int
    run: int  # that it was used in


class RamCache:
    """Keeps `headroom` bytes of the machine free; None: a tenth of it, at least 2 and at most 10 GiB."""

    holds_run = True

    def __init__(
        self,
        headroom: int | None = None,
        measure: Callable[[Entry], int] | None = None,
        available: Callable[[], int] = host_memory.available,
    ) -> None:
        self.headroom = default_headroom() if headroom is None else headroom
        self._measure = measure or entry_bytes
        self._available = available
        self._held: dict[str, _Held] = {}
        self._run = 0
        self._unchecked = 0

    def begin(self, wanted: Collection[str]) -> None:
        self._run += 1
        for signature in wanted:
            self.get(signature)
        self._relieve()

    def get(self, signature: str) -> Entry | None:
        found = self._held.get(signature)
        if found is None:
            return None
        found.run = self._run
        return found.entry

    def put(self, signature: str, entry: Entry, owner: str | None = None) -> None:
        nbytes = max(SMALLEST, self._measure(entry))
        self._held[signature] = _Held(entry, nbytes, self._run)
        self._unchecked += nbytes
        if self._unchecked >= CHECK_BYTES or len(self._held) > MOST_ENTRIES:
            self._relieve()

    def clear(self) -> None:
        self._held.clear()

    def entries(self) -> Iterator[tuple[str, Entry]]:
        return iter([(signature, held.entry) for signature, held in self._held.items()])

    def __len__(self) -> int:
        return len(self._held)

    def _relieve(self) -> None:
        """Drop results of other runs until enough is free. Freed memory shows late, so that bytes are counted."""
        self._unchecked = 0
        need = self.headroom - self._available()
        surplus = len(self._held) - MOST_ENTRIES
        if need <= 0 and surplus <= 0:
            return
        others = [(self._weight(held), signature) for signature, held in self._held.items() if held.run != self._run]
        for _, signature in sorted(others, reverse=True):
            if need <= 0 and surplus <= 0:
                return
            need -= self._held.pop(signature).nbytes
            surplus -= 1

    def _weight(self, held: _Held) -> float:
        return AGEING ** min(self._run - held.run, 1000) * held.nbytes


def default_headroom() -> int:
    return min(10 * GIB, max(2 * GIB, host_memory.total() // 10))


def entry_bytes(entry: Entry) -> int:
    """Bytes of the tensors in a result that lie in the machine's memory, each storage once."""
    seen: dict[int, int] = {}
    stack = list[Any](entry.outputs)
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            stack.extend(value.values())
        elif isinstance(value, list | tuple):
            stack.extend(value)
        else:
            where, size = _held_bytes(value)
            seen[where] = max(size, seen.get(where, 0))
    return sum(seen.values())


def _held_bytes(value: Any) -> tuple[int, int]:
    """(what holds it, bytes). A view keeps all of the storage that it looks into."""
    device = getattr(value, "device", None)
    if device is not None and getattr(device, "type", "cpu") != "cpu":
        return id(value), 0
    storage = getattr(value, "untyped_storage", None)
    if callable(storage):
        found: Any = storage()
        return found.data_ptr(), found.nbytes()
    size = getattr(value, "nbytes", 0)
    return id(value), size if isinstance(size, int) else 0
