"""What each cache strategy keeps from prompt to prompt, with real pictures in the worker's executors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.graph.job import Executors, GraphOptions
from engine.graph.registry import Registry
from engine.nodes import load_all
from engine.workspace import Workspace
from tests.graph.test_job import JobContext


@pytest.fixture(scope="module")
def registry() -> Registry:
    found = Registry()
    load_all(found)
    return found


def picture(seed: int) -> dict[str, Any]:
    nodes: dict[str, tuple[str, dict[str, Any]]] = {
        "1": ("EmptyImage", {"width": 256, "height": 256, "batch_size": 1, "color": seed}),
        "2": ("ImageInvert", {"image": ["1", 0]}),
        "3": ("PreviewImage", {"images": ["2", 0]}),
    }
    return {node_id: {"class_type": kind, "inputs": inputs} for node_id, (kind, inputs) in nodes.items()}


@pytest.mark.parametrize(
    ("strategy", "again", "held"),
    [
        ("none", [], 0),
        ("classic", [], 3),
        ("lru:100", ["1", "2", "3"], 6),
        ("lru:4", ["3"], 4),  # the newest of the first prompt
        ("ram:0.000001", ["1", "2", "3"], 6),  # as good as nothing has to stay free
        ("ram:1000000", [], 3),  # more than the machine has
    ],
)
def test_each_strategy_keeps_what_it_says(
    strategy: str, again: list[str], held: int, tmp_path: Path, registry: Registry
) -> None:
    """A prompt, another, and the first again: what is found `again`, and the entries `held` after two."""
    ctx = JobContext(Workspace(tmp_path).create(), registry)
    ctx.kept[GraphOptions] = GraphOptions(cache=strategy)
    for seed in (1, 2):
        ctx.run(picture(seed))
    told = ctx.kept[Executors].dump()["finals"]
    assert told["entries"] == held
    assert (told["bytes"] >= 256 * 256 * 3 * 4) == (held > 0)
    ctx.run(picture(1))
    cached = next(data["nodes"] for event, data in ctx.events if event == "execution_cached")
    assert cached == again
