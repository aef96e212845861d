"""Cache strategies by the names that the owner may choose from, and a look into a cache."""

from __future__ import annotations

from typing import Any

from engine.errors import InputError
from engine.graph.cache import Cache, ClassicCache, LruCache, NoCache
from engine.graph.ram_cache import GIB, RamCache, entry_bytes


class UnknownCacheStrategy(InputError):
    en = "There is no cache strategy '{name}'. Use none, classic, lru:N (entries) or ram, ram:GIGABYTES (to keep free)."
    zh = "没有名为“{name}”的缓存策略。可用：none、classic、lru:N（条目数）或 ram、ram:GB 数（保留的空闲内存）。"


def cache_for(strategy: str) -> Cache:
    """`none`, `classic`, `lru:N`, `ram` or `ram:GIGABYTES`."""
    name, _, amount = strategy.partition(":")
    try:
        match name:
            case "none" if not amount:
                return NoCache()
            case "classic" if not amount:
                return ClassicCache()
            case "lru" if int(amount) > 0:
                return LruCache(int(amount))
            case "ram" if not amount:
                return RamCache()
            case "ram" if float(amount) > 0:
                return RamCache(int(float(amount) * GIB))
    except ValueError:
        pass
    raise UnknownCacheStrategy(name=strategy)


def dump(cache: Cache, most: int = 1000) -> dict[str, Any]:
    """What a cache holds, the largest first: {"entries", "bytes", "largest": [{"signature", "type", "bytes", ...}]}."""
    rows = [
        {
            "signature": signature,
            "type": entry.source,
            "bytes": entry_bytes(entry),
            "outputs": [[_kind(value) for value in values[:5]] for values in entry.outputs],
        }
        for signature, entry in cache.entries()
    ]
    rows.sort(key=lambda row: -row["bytes"])
    return {
        "strategy": type(cache).__name__,
        "entries": len(rows),
        "bytes": sum(row["bytes"] for row in rows),
        "largest": rows[:most],
    }


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ + (str(tuple(shape)) if shape is not None else "")
