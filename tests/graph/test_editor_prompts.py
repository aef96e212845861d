"""The same prompts as the official editor makes: recorded from it by tests/browser/test_editor_prompts.py."""

from __future__ import annotations

import contextlib
import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.graph.catalogue import Catalogue, Entry
from engine.graph.layout import to_workflow
from engine.graph.registry import Registry
from engine.graph.workflow import NotAWorkflow, UnsupportedWorkflow, to_prompt
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


@pytest.mark.parametrize("name", [name for name in BUILT if ":" not in "".join(RECORDED[name]["prompt"])])
def test_the_prompt_comes_back_from_a_workflow_that_is_made_of_it(name: str, catalogue: Catalogue) -> None:
    prompt = RECORDED[name]["prompt"]
    back = to_prompt(to_workflow(prompt, catalogue), catalogue)
    assert {key: node["inputs"] for key, node in back.items()} == {key: node["inputs"] for key, node in prompt.items()}


@pytest.mark.parametrize("name", RANDOM)
def test_random_graphs_with_subgraphs_and_reroutes_give_the_editors_prompt(name: str, catalogue: Catalogue) -> None:
    assert to_prompt(random_workflow(RECORDED[name]["seed"]), catalogue) == RECORDED[name]["prompt"]


ODD = (
    None,
    True,
    -1,
    1.5,
    10**30,
    "",
    "x",
    [],
    [[]],
    {},
    {"a": 1},
    [1, 2, 3, 4, 5, 6],
    ["1", 0],
    "Reroute",
    "KSampler",
)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(what holds it, key) of everything inside."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield value, key
        yield from _places(inner)


@pytest.mark.parametrize("seed", range(20))
def test_a_workflow_with_anything_anywhere_is_read_or_refused_in_words(seed: int, catalogue: Catalogue) -> None:
    rng = random.Random(seed)
    whole = [RECORDED[name]["workflow"] for name in BUILT] + [random_workflow(1000 + n) for n in range(20)]
    for _ in range(25):
        document = copy.deepcopy(rng.choice(whole))
        for _ in range(rng.randint(1, 3)):
            holder, key = rng.choice(list(_places(document)))
            if rng.random() < 0.2:
                del holder[key]
            else:
                holder[key] = copy.deepcopy(rng.choice(ODD))
        with contextlib.suppress(NotAWorkflow, UnsupportedWorkflow):
            to_prompt(document, catalogue)


def test_enough_was_recorded() -> None:
    assert len(BUILT) >= 18 and len(RANDOM) >= 40
    subgraphs = [name for name in RANDOM if "definitions" in random_workflow(RECORDED[name]["seed"])]
    assert len(subgraphs) >= 20
