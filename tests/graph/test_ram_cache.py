"""Results are kept while there is memory to spare; what is large and old goes first."""

from __future__ import annotations

import pytest
import torch

from engine.graph.cache import Entry
from engine.graph.ram_cache import CHECK_BYTES, GIB, RamCache, default_headroom, entry_bytes
from engine.graph.strategies import UnknownCacheStrategy, cache_for, dump
from tests.graph.graph_toys import Runner


class Machine:
    """Has `free` bytes."""

    def __init__(self) -> None:
        self.free = 100


def entry(nbytes: int) -> Entry:
    return Entry([[torch.zeros(nbytes, dtype=torch.uint8)]], source="Toy")


def cache(machine: Machine) -> RamCache:
    return RamCache(headroom=50, measure=lambda e: e.outputs[0][0].nbytes, available=lambda: machine.free)


def filled(machine: Machine) -> RamCache:
    """`large` and `small` of the first run, `fresh` as large of the second."""
    kept = cache(machine)
    for name, size in (("large", 9000), ("small", 5000)):
        kept.begin([])
        kept.put(name, entry(size))
    kept.begin([])
    kept.put("fresh", entry(9000))
    return kept


def names(kept: RamCache) -> set[str]:
    return {name for name, _ in kept.entries()}


def test_everything_stays_while_there_is_room():
    kept = filled(Machine())
    kept.begin([])
    assert names(kept) == {"large", "small", "fresh"}


def test_under_pressure_the_large_and_old_goes_first_and_only_as_much_as_needed():
    machine = Machine()
    kept = filled(machine)
    machine.free = 49
    kept.begin([])
    assert names(kept) == {"small", "fresh"}


def test_age_outweighs_size_in_the_end():
    machine = Machine()
    kept = filled(machine)
    for _ in range(5):
        kept.begin(["large", "fresh"])
    machine.free = 49
    kept.begin(["large", "fresh"])
    assert names(kept) == {"large", "fresh"}


def test_what_the_running_prompt_has_stays_whatever_the_pressure():
    machine = Machine()
    kept = filled(machine)
    machine.free = -100_000  # all of it would not be enough
    kept.begin(["large"])
    assert names(kept) == {"large"}
    kept.put("huge", entry(CHECK_BYTES))
    assert names(kept) == {"large", "huge"}


def test_a_large_result_makes_it_look_in_the_middle_of_a_run():
    machine = Machine()
    kept = filled(machine)
    kept.begin([])
    machine.free = -100_000  # all of it would not be enough
    kept.put("huge", entry(CHECK_BYTES))
    assert names(kept) == {"huge"}


def test_bytes_are_those_of_storages_each_once_wherever_they_hang():
    base = torch.zeros(10, 1000)
    nested = {"samples": base, "mask": [base[:1]], "n": 3}
    assert entry_bytes(Entry([[nested, base[2:4]], [torch.zeros(5, dtype=torch.uint8)], ["text", None]])) == 40_005
    assert entry_bytes(Entry([[torch.zeros(1000, device="meta")]])) == 0


def test_a_tenth_of_the_machine_stays_free_within_bounds():
    assert 2 * GIB <= default_headroom() <= 10 * GIB


def test_strategies_have_names():
    assert isinstance(cache_for("ram"), RamCache)
    found = cache_for("ram:1.5")
    assert isinstance(found, RamCache) and found.headroom == int(1.5 * GIB)
    for wrong in ("lru", "lru:0", "ram:0", "classic:3", "rom"):
        with pytest.raises(UnknownCacheStrategy):
            cache_for(wrong)


@pytest.mark.parametrize("strategy", ["classic", "lru:9", "ram"])
def test_a_cache_can_be_looked_into(strategy: str):
    runner = Runner(cache_for(strategy))
    runner.run({"1": {"Const": {"value": 2}}, "2": {"Show": {"value": ["1", 0]}}})
    found = dump(runner.cache)
    assert found["entries"] == 2 and found["bytes"] == 0
    assert {row["type"]: row["outputs"] for row in found["largest"]} == {"Const": [["int"]], "Show": []}
    assert dump(cache_for("none"))["entries"] == 0
