"""The same prompts as the official editor makes: recorded from it by tests/browser/test_editor_prompts.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.graph.catalogue import Catalogue, Entry
from engine.graph.registry import Registry
from engine.graph.workflow import to_prompt
from engine.nodes import load_all
from tests.graph.editor_graphs import TOYS, random_workflow

RECORDED: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "data" / "editor_prompts.json").read_text(encoding="utf-8")
)
BUILT = [name for name, one in RECORDED.items() if "seed" not in one]
RANDOM = [name for name in RECORDED if name not in BUILT]


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    registry = Registry()
    load_all(registry)
    return Catalogue.of(registry).with_more(Catalogue({name: Entry(info) for name, info in TOYS.items()}))


@pytest.mark.parametrize("name", BUILT)
def test_what_was_built_in_the_editor_is_sent_as_the_editor_sends_it(name: str, catalogue: Catalogue) -> None:
    assert to_prompt(RECORDED[name]["workflow"], catalogue) == RECORDED[name]["prompt"]


@pytest.mark.parametrize("name", RANDOM)
def test_random_graphs_with_subgraphs_and_reroutes_give_the_editors_prompt(name: str, catalogue: Catalogue) -> None:
    assert to_prompt(random_workflow(RECORDED[name]["seed"]), catalogue) == RECORDED[name]["prompt"]


def test_enough_was_recorded() -> None:
    assert len(BUILT) >= 18 and len(RANDOM) >= 40
    subgraphs = [name for name in RANDOM if "definitions" in random_workflow(RECORDED[name]["seed"])]
    assert len(subgraphs) >= 20
