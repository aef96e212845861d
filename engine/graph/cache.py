"""Results kept between prompts, by signature: what a node is, its constants and the signatures it hangs on.

A signature says nothing of node ids, so that a renumbered or extended workflow finds what was computed before.
Strategies: none (a run holds results only until they are used), classic (what the last prompt had), LRU by entries or
by bytes. The entries of the prompt that runs are never dropped.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from engine.errors import InputError
from engine.graph.registry import NodeType


class UnknownCacheStrategy(InputError):
    en = "There is no cache strategy '{name}'. Use none, classic, lru:N (entries) or ram:GIGABYTES."
    zh = "没有名为“{name}”的缓存策略。可用：none、classic、lru:N（条目数）或 ram:GB 数。"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a node gave: one list per output, and what it shows."""

    outputs: list[list[Any]]
    ui: dict[str, Any] | None = None


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

    def __len__(self) -> int:
        return len(self._entries)


class LruCache:
    """Holds entries of several prompts; the least recently used go first when there are too many or they are too big.
    `measure` gives the bytes of an entry (torch is not known here)."""

    holds_run = True

    def __init__(
        self,
        max_entries: int | None = None,
        max_bytes: int | None = None,
        measure: Callable[[Entry], int] = lambda entry: 0,
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._measure = measure
        self._entries: OrderedDict[str, tuple[Entry, int, int]] = OrderedDict()  # entry, bytes, run it was used in
        self._bytes = 0
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
        self._entries[signature] = (found[0], found[1], self._run)
        self._entries.move_to_end(signature)
        return found[0]

    def put(self, signature: str, entry: Entry, owner: str | None = None) -> None:
        if signature in self._entries:
            self._bytes -= self._entries.pop(signature)[1]
        size = self._measure(entry)
        self._entries[signature] = (entry, size, self._run)
        self._bytes += size
        self._trim()

    def clear(self) -> None:
        self._entries.clear()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def _trim(self) -> None:
        while self._entries and self._too_much():
            _, size, run = next(iter(self._entries.values()))
            if run == self._run:
                return
            self._entries.popitem(last=False)
            self._bytes -= size

    def _too_much(self) -> bool:
        too_many = self._max_entries is not None and len(self._entries) > self._max_entries
        return too_many or (self._max_bytes is not None and self._bytes > self._max_bytes)


def cache_for(strategy: str, measure: Callable[[Entry], int] = lambda entry: 0) -> Cache:
    """`none`, `classic`, `lru:N` or `ram:GIGABYTES`."""
    name, _, amount = strategy.partition(":")
    try:
        match name:
            case "none" if not amount:
                return NoCache()
            case "classic" if not amount:
                return ClassicCache()
            case "lru" if int(amount) > 0:
                return LruCache(max_entries=int(amount))
            case "ram" if float(amount) > 0:
                return LruCache(max_bytes=int(float(amount) * 2**30), measure=measure)
    except ValueError:
        pass
    raise UnknownCacheStrategy(name=strategy)


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
