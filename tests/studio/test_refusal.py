"""A refused prompt in words: each reason in both languages."""

from __future__ import annotations

from typing import Any

import pytest

from engine.graph.validation import Validation, request_error
from studio.refusal import PromptRefused


def refused(kind: str, **about: Any) -> PromptRefused:
    error = request_error(kind, "message", "details", **about)
    node = {"errors": [error], "dependent_outputs": ["7"], "class_type": "KSampler"}
    return PromptRefused(Validation({}, error=request_error("x", "y"), node_errors={"5": node}))


@pytest.mark.parametrize(
    ("kind", "about", "en", "zh"),
    [
        (
            "value_smaller_than_min",
            {"input_name": "steps", "received_value": -5, "input_config": ["INT", {"min": 1}]},
            "steps is -5, less than 1.",
            "steps 为 -5，小于 1。",
        ),
        (
            "value_not_in_list",
            {"input_name": "ckpt_name", "received_value": "a.safetensors", "input_config": None},
            "ckpt_name: there is no 'a.safetensors'.",
            "ckpt_name：没有“a.safetensors”。",
        ),
        ("required_input_missing", {"input_name": "seed"}, "seed is missing.", "缺少 seed。"),
        ("something_new", {}, "message: details", "message：details"),
    ],
)
def test_each_reason_has_words(kind: str, about: dict[str, Any], en: str, zh: str) -> None:
    error = refused(kind, **about)
    assert error.text("en") == f"This can't run. {en}"
    assert error.text("zh") == f"无法运行。{zh}"


def test_what_is_wrong_before_there_are_nodes_is_said_as_well() -> None:
    error = PromptRefused(Validation({}, error=request_error("missing_node_type", "m", "d", class_type="Nope")))
    assert error.text("en") == "This can't run. There is no node 'Nope' here."


def test_braces_in_a_value_are_only_letters() -> None:
    error = refused("value_not_in_list", input_name="lora_name", received_value="{0} {x}", input_config=None)
    assert "'{0} {x}'" in error.text("en")
