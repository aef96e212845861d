"""Lazy inputs whose check is a coroutine: waited for, once for each item of a list, and told when it fails."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from engine.graph.node import In, NodeContext, Out, node
from tests.graph.graph_toys import Runner, text

asked: list[tuple[bool, Any, Any]] = []


async def _chosen_in_a_while(switch: bool, on_true: Any, on_false: Any) -> list[str]:
    await asyncio.sleep(0.01)
    asked.append((switch, on_true, on_false))
    name, value = ("on_true", on_true) if switch else ("on_false", on_false)
    return [name] if value is None else []


async def _never(value: Any) -> list[str]:
    await asyncio.sleep(0)
    raise RuntimeError("nobody answers")


@node("SlowSwitch", category="toys", outputs=[Out("*")], check_lazy=_chosen_in_a_while)
def slow_switch(
    ctx: NodeContext,
    switch: Annotated[bool, In("BOOLEAN")],
    on_true: Annotated[Any, In("*", lazy=True)],
    on_false: Annotated[Any, In("*", lazy=True)],
) -> tuple[Any]:
    return (on_true if switch else on_false,)


@node("NeverAsks", category="toys", outputs=[Out("*")], check_lazy=_never)
def never_asks(ctx: NodeContext, value: Annotated[Any, In("*", lazy=True)]) -> tuple[Any]:
    return (value,)


@node("Booleans", category="toys", outputs=[Out("BOOLEAN", is_list=True)])
def booleans(ctx: NodeContext) -> tuple[list[bool]]:
    return ([True, False],)


def runner() -> Runner:
    asked.clear()
    found = Runner()
    for function in (slow_switch, never_asks, booleans):
        found.executor.registry.add(function)
    return found


SIDES = {"1": {"Const": {"value": 1}}, "2": {"Fail": {"value": 2}}, "4": {"Show": {"value": ["3", 0]}}}


def test_only_what_an_async_check_asks_for_is_computed() -> None:
    one = runner()
    outcome = one.run(SIDES | {"3": {"SlowSwitch": {"switch": True, "on_true": ["1", 0], "on_false": ["2", 0]}}})
    assert text(outcome) == {"4": "1"} and one.ran() == ["3", "1", "3", "4"]
    assert asked == [(True, None, None), (True, 1, None)]


def test_an_async_check_is_asked_for_each_item_of_a_list() -> None:
    one = runner()
    sides = SIDES | {"2": {"Const": {"value": 2}}, "0": {"Booleans": {}}}
    outcome = one.run(sides | {"3": {"SlowSwitch": {"switch": ["0", 0], "on_true": ["1", 0], "on_false": ["2", 0]}}})
    assert text(outcome) == {"4": "1|2"}
    assert asked == [(True, None, None), (False, None, None), (True, 1, 2), (False, 1, 2)]


def test_an_async_check_that_fails_ends_the_run_at_its_node() -> None:
    outcome = runner().run(SIDES | {"3": {"NeverAsks": {"value": ["1", 0]}}})
    assert outcome.status == "error" and outcome.error
    assert "3 (NeverAsks)" in str(outcome.error) and "nobody answers" in str(outcome.error)
