"""Random graphs give what a plain recursive evaluation gives, whatever was cached before, and no node runs in vain."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.graph.cache import Cache, ClassicCache, LruCache, NoCache
from engine.graph.ram_cache import CHECK_BYTES, RamCache
from tests.graph.graph_toys import Runner

KINDS = ("Const", "Add", "Switch", "Range", "Total", "Expand", "ExpandSome", "Wait", "Show")
Prompt = dict[str, dict[str, Any]]


@st.composite
def prompts(draw: st.DrawFn) -> Prompt:
    """Up to 14 nodes, each linked to earlier ones; some show what they get."""
    nodes: Prompt = {"0": {"class_type": "Const", "inputs": {"value": draw(st.integers(0, 2))}}}

    def source() -> Any:
        if draw(st.booleans()):
            return draw(st.integers(0, 3))
        makers = [name for name in nodes if nodes[name]["class_type"] != "Show"]
        return [draw(st.sampled_from(makers)), 0]

    for number in range(1, draw(st.integers(2, 14))):
        kind = draw(
            st.sampled_from(["Const", "Add", "Switch", "Range", "Total", "Expand", "ExpandSome", "Wait", "Show"])
        )
        inputs: dict[str, Any] = {
            "Const": lambda: {"value": source()},
            "Add": lambda: {"a": source(), "b": source()},
            "Switch": lambda: {"switch": draw(st.booleans()), "on_true": source(), "on_false": source()},
            "Range": lambda: {"count": draw(st.integers(1, 3))},
            "Total": lambda: {"values": source()},
            "Expand": lambda: {"value": source(), "times": draw(st.integers(0, 2))},
            "ExpandSome": lambda: {"value": source()},
            "Wait": lambda: {"value": 0},
            "Show": lambda: {"value": source()},
        }[kind]()
        nodes[str(number)] = {"class_type": kind, "inputs": inputs}
    nodes["end"] = {"class_type": "Show", "inputs": {"value": source()}}
    return nodes


def expected(prompt: Prompt) -> dict[str, list[str]]:
    values: dict[str, list[int]] = {}

    def of(value: Any) -> list[int]:
        return node(value[0]) if isinstance(value, list) else [value]

    def node(name: str) -> list[int]:
        if name not in values:
            values[name] = made(prompt[name]["class_type"], prompt[name]["inputs"])
        return values[name]

    def mapped(*lists: list[int]) -> list[tuple[int, ...]]:
        return [tuple(one[min(i, len(one) - 1)] for one in lists) for i in range(max(map(len, lists)))]

    def made(kind: str, inputs: dict[str, Any]) -> list[int]:
        match kind:
            case "Add":
                return [a + b for a, b in mapped(of(inputs["a"]), of(inputs["b"]))]
            case "Switch":
                return of(inputs["on_true"] if inputs["switch"] else inputs["on_false"])
            case "Range":
                return list(range(inputs["count"]))
            case "Total":
                return [sum(of(inputs["values"]))]
            case "Expand":
                return [value + inputs["times"] for value in of(inputs["value"])]
            case "ExpandSome":
                return [value if value % 2 == 0 else 2 * value for value in of(inputs["value"])]
        return of(inputs["value"])

    return {
        name: [str(value) for value in of(node["inputs"]["value"])]
        for name, node in prompt.items()
        if node["class_type"] == "Show"
    }


CACHES = {
    "none": NoCache,
    "classic": ClassicCache,
    "lru": lambda: LruCache(max_entries=6),
    "ram": lambda: RamCache(headroom=1, measure=lambda entry: CHECK_BYTES, available=lambda: 0),
}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(CACHES)), st.lists(prompts(), min_size=1, max_size=4))
def test_outputs_are_those_of_a_plain_evaluation(kind, series):
    cache: Cache = CACHES[kind]()
    runner = Runner(cache, live={"log": []})
    for prompt in [*series, *series]:
        outcome = runner.run(prompt)
        assert outcome.status == "success", outcome.error
        shown = {name: ui["text"] for name, ui in outcome.outputs.items() if name in prompt}
        assert shown == expected(prompt)
        assert set(runner.ran()) - set(prompt) == {name for name in runner.ran() if "." in name}


@settings(max_examples=100, deadline=None)
@given(prompts())
def test_the_same_prompt_again_runs_nothing(prompt):
    runner = Runner(live={"log": []})
    runner.run(prompt)
    again = runner.run(prompt)
    assert again.status == "success"
    assert runner.ran() == []


@settings(max_examples=100, deadline=None)
@given(prompts())
def test_without_a_cache_no_result_outlives_its_last_reader(prompt):
    from engine.graph import executor

    kept: list[Any] = []
    plain = executor._Execution

    class Watched(plain):  # type: ignore[misc, valid-type]
        def run(self, outputs):
            outcome = super().run(outputs)
            kept.extend(node for node in self.plan.nodes.values() if node.entry is not None)
            return outcome

    executor._Execution = Watched  # type: ignore[misc]
    try:
        assert Runner(NoCache(), live={"log": []}).run(prompt).status == "success"
    finally:
        executor._Execution = plain
    assert [node.id for node in kept] == []
