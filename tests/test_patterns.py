"""Patterns of strangers: what they find, and that none holds a thread for long."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from engine.nodes import strings
from engine.patterns import (
    LONGEST,
    SECONDS,
    BadPattern,
    Expression,
    PatternTooSlow,
    ResultTooLong,
    TextTooLong,
    expression,
)
from tests.nodes.context import Context

SLOW = "(a|aa)+$"
TEXT = "a" * 60 + "b"


def hurried(pattern: str) -> Expression:
    return replace(expression(pattern), seconds=0.2)


@pytest.mark.parametrize("pattern", [SLOW, r"(a|b|ab)*c?\d"])
def test_a_pattern_that_would_take_for_ever_ends_at_its_deadline(pattern: str) -> None:
    for ask in (Expression.found, lambda e, t: list(e.finds(t)), lambda e, t: e.replaced(t, "x")):
        start = time.monotonic()
        with pytest.raises(PatternTooSlow, match="seconds"):
            ask(hurried(pattern), TEXT * 20)
        assert time.monotonic() - start < 10  # and not for ever


def test_other_threads_go_on_meanwhile() -> None:
    ticks: list[float] = []
    done = threading.Event()

    def tick() -> None:
        while not done.wait(0.02):
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick)
    thread.start()
    with pytest.raises(PatternTooSlow):
        replace(expression(SLOW), seconds=1.0).found(TEXT)
    done.set()
    thread.join()
    assert len(ticks) >= 5


def test_nodes_have_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strings, "expression", lambda pattern, **wishes: hurried(pattern))
    ctx: Context = Context.__new__(Context)
    for call in (
        lambda: strings.regex_match(ctx, TEXT, SLOW, True, False, False),
        lambda: strings.regex_extract(ctx, TEXT, SLOW, "All Matches", True, False, False, 1),
        lambda: strings.regex_replace(ctx, TEXT, SLOW, "x"),
    ):
        with pytest.raises(PatternTooSlow):
            call()
    assert expression(SLOW).seconds == SECONDS


@pytest.mark.parametrize("pattern", ["(a", "[", "*", "(?P<a>x)(?P<a", "\\"])
def test_a_broken_pattern_is_told(pattern: str) -> None:
    with pytest.raises(BadPattern):
        expression(pattern)


def test_a_replacement_with_a_group_that_is_not_there_is_told() -> None:
    with pytest.raises(BadPattern, match=r"\\9"):
        expression("a").replaced("a", r"\9")


def test_texts_and_results_have_a_size() -> None:
    with pytest.raises(TextTooLong):
        expression("a").found("a" * (LONGEST + 1))
    with pytest.raises(ResultTooLong):
        expression("a").replaced("a" * 1000, "b" * 10_000)


def test_groups_counts_and_flags() -> None:
    assert expression(r"(\w)(\d)").replaced("a1 b2 c3", r"\2\1", 2) == "1a 2b c3"
    assert expression(r"(?P<l>\w)(\d)?").replaced("ab", r"<\g<l>\2>") == "<a><b>"
    assert expression("x*").replaced("abc", "-") == "-a-b-c-"
    assert expression("^B$", ignore_case=True, multiline=True).found("A\nb")
    assert not expression("a.b").found("a\nb") and expression("a.b", dotall=True).found("a\nb")
