"""Time per node of validation and executor, against the figures that a server on this code has to meet."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from engine.graph.catalogue import Catalogue
from engine.graph.validation import validate
from tests.graph.graph_toys import Runner, registry

pytestmark = pytest.mark.usefixtures("settled")


def graph(shape: str, count: int) -> dict[str, Any]:
    nodes: dict[str, Any] = {}
    nonce = random.randrange(10**9)

    def add(kind: str, value: Any) -> str:
        name = str(len(nodes) + 1)
        nodes[name] = {"class_type": kind, "inputs": {"value": value}}
        return name

    lengths = {"wide": 2, "ladder": 50, "chain": count}
    for number in range(count // lengths[shape]):
        last = add("Const", nonce + number)
        for _ in range(lengths[shape] - 2):
            last = add("Noop", [last, 0])
        add("Sink", [last, 0])
    return nodes


def seconds(runner: Runner, catalogue: Catalogue, prompt: dict[str, Any]) -> float:
    start = time.thread_time()
    found = validate(prompt, catalogue, runner.workspace)
    outcome = runner.run(found.prompt, found.outputs)
    assert outcome.status == "success"
    return time.thread_time() - start


@pytest.mark.parametrize(
    ("shape", "count", "cold", "cached"),
    [
        ("wide", 1000, 0.25, 0.05),
        ("ladder", 1000, 0.25, 0.05),
        ("wide", 5000, 1.2, 0.25),
        ("ladder", 5000, 1.2, 0.25),
        ("chain", 800, 0.2, 0.1),
        ("chain", 10_000, 2.5, 0.6),
    ],
)
def test_a_prompt_takes_no_longer_than_it_may(shape, count, cold, cached):
    """CPU time, the best of some tries: the machine does other things as well."""
    catalogue = Catalogue.of(registry())
    first, second = [], []
    for _ in range(6):
        runner, prompt = Runner(), graph(shape, count)
        assert len(prompt) == count
        first.append(seconds(runner, catalogue, prompt))
        second.append(seconds(runner, catalogue, prompt))
        if min(first) <= cold and min(second) <= cached:
            return
    raise AssertionError(f"{min(first):.3f} s of {cold}, {min(second):.3f} s of {cached} where all is cached")


def test_a_change_of_a_node_is_told_a_few_times_and_no_more():
    runner = Runner()
    runner.run(graph("wide", 4000))
    assert sum(len(data["nodes"]) for data in runner.data("progress_state")) <= 2 * 4000
