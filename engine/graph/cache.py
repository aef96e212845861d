"""Results kept between prompts, by signature: what a node is, its constants and the signatures it hangs on.

A signature says nothing of node ids, so that a renumbered or extended workflow finds what was computed before.
Here: none (a run holds results only until they are used), classic (what the last prompt had), LRU by entries. By bytes:
engine/graph/ram_cache.py. The entries of the prompt that runs are never dropped.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from engine.graph.registry import NodeType


@dataclass(frozen=True, slots=True)
class Entry:
    """What a node gave: one list per output, and what it shows. `source` is its type, for who looks into a cache."""

    outputs: list[list[Any]]
    ui: dict[str, Any] | None = None
    source: str = ""


class Cache(Protocol):
    """Where results wait for the next prompt. One run uses it at a time."""

    holds_run: bool  # True: whatever is put stays at least until the next `begin`

    def begin(self, wanted: Collection[str]) -> None:
        """A run starts whose prompt has these signatures (and ids of nodes without one)."""
        ...

    def get(self, signature: str) -> Entry | None: ...

    def put(self, signature: str, entry: Entry, owner: str | None = None) -> None:
        """`owner`: the signature (or id) of the node whose expansion this one is part of; it is kept with its owner."""
        ...

    def clear(self) -> None: ...

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """(signature, entry) of all that is held, for those who look into it."""
        ...


class NoCache:
    holds_run = False

    def begin(self, wanted: Collection[str]) -> None:
        pass

    def get(self, signature: str) -> Entry | None:
        return None

    def put(self, signature: str, entry: Entry, owner: str | None = None) -> None:
        pass

    def clear(self) -> None:
        pass

    def entries(self) -> Iterator[tuple[str, Entry]]:
        return iter(())


class ClassicCache:
    """Holds what the last prompt had. What the next one does not have is dropped before it starts."""

    holds_run = True

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._owned: dict[str, set[str]] = {}  # owner: signatures of its expansion

    def begin(self, wanted: Collection[str]) -> None:
        keep: set[str] = set()
        stack = list(wanted)
        while stack:
            name = stack.pop()
            if name not in keep:
                keep.add(name)
                stack.extend(self._owned.get(name, ()))
        self._entries = {name: entry for name, entry in self._entries.items() if name in keep}
        self._owned = {name: owned for name, owned in self._owned.items() if name in keep}

    def get(self, signature: str) -> Entry | None:
        return self._entries.get(signature)

    def put(self, signature: str, entry: Entry, owner: str | None = None) -> None:
        self._entries[signature] = entry
        if owner is not None:
            self._owned.setdefault(owner, set()).add(signature)

    def clear(self) -> None:
        self._entries.clear()
        self._owned.clear()

    def entries(self) -> Iterator[tuple[str, Entry]]:
        return iter(list(self._entries.items()))

    def __len__(self) -> int:
        return len(self._entries)


class LruCache:
    """Holds entries of several prompts; the least recently used go first when there are too many."""

    holds_run = True

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._entries: OrderedDict[str, tuple[Entry, int]] = OrderedDict()  # entry, run it was used in
        self._run = 0

    def begin(self, wanted: Collection[str]) -> None:
        self._run += 1
        for signature in wanted:
            self.get(signature)
        self._trim()

    def get(self, signature: str) -> Entry | None:
        found = self._entries.get(signature)
        if found is None:
            return None
        self._entries[signature] = (found[0], self._run)
        self._entries.move_to_end(signature)
        return found[0]

    def put(self, signature: str, entry: Entry, owner: str | None = None) -> None:
        self._entries[signature] = (entry, self._run)
        self._entries.move_to_end(signature)
        self._trim()

    def clear(self) -> None:
        self._entries.clear()

    def entries(self) -> Iterator[tuple[str, Entry]]:
        return iter([(signature, entry) for signature, (entry, _) in self._entries.items()])

    def __len__(self) -> int:
        return len(self._entries)

    def _trim(self) -> None:
        while len(self._entries) > self._max_entries:
            _, run = next(iter(self._entries.values()))
            if run == self._run:
                return
            self._entries.popitem(last=False)


def signature(
    node_type: NodeType, inputs: Mapping[str, Any], links: Mapping[str, tuple[str, int]], changed: Any, salt: str
) -> tuple[str, bool]:
    """(signature, whether an equal one can ever come again). `links` are (signature of the source, slot) by input;
    `inputs` the constants; `changed` what the node's fingerprint said; `salt` what else must differ."""
    parts = [node_type.name, salt, changed, sorted(inputs.items()), sorted(links.items())]
    try:
        text = json.dumps(parts, separators=(",", ":"), allow_nan=False, sort_keys=True)
    except (TypeError, ValueError):  # an object that has no JSON, or NaN, which equals nothing
        return uuid.uuid4().hex, False
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest(), True
