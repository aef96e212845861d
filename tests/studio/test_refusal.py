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
            "ckpt_name: there is no 'a.safetensors'. Put it into models/checkpoints, or choose one that is there.",
            "ckpt_name：没有“a.safetensors”。请将其放入 models/checkpoints，或选择已有的文件。",
        ),
        (
            "value_not_in_list",
            {"input_name": "sampler_name", "received_value": "eulr", "input_config": None},
            "sampler_name: there is no 'eulr'. Choose one that is listed.",
            "sampler_name：没有“eulr”。请从列表中选择。",
        ),
        ("custom_validation_failed", {"input_name": "image"}, "image: details.", "image：details。"),
        (
            "required_input_missing",
            {"input_name": "seed"},
            "seed is missing: set it, or tie it to a node.",
            "缺少 seed：请填写，或连接到某个节点。",
        ),
        (
            "value_not_in_list",
            {"input_name": "image", "received_value": ""},
            "image is missing: set it, or tie it to a node.",
            "缺少 image：请填写，或连接到某个节点。",
        ),
        (
            "return_type_mismatch",
            {"input_name": "model", "received_type": "CLIP", "input_config": ["MODEL", {}]},
            "model can't take what is linked to it: it gives CLIP, and MODEL is needed.",
            "model 不能接受所连接的内容：得到 CLIP，需要 MODEL。",
        ),
        (
            "exception_during_inner_validation",
            {"input_name": "clip", "input_config": ["CLIP", {}]},
            "clip is linked to what is not there: details.",
            "clip 连接到了不存在的位置：details。",
        ),
        ("loop_without_end", {}, "A Start Loop has no End Loop.", "有循环开始节点没有对应的结束节点。"),
        ("something_new", {}, "message: details", "message：details"),
    ],
)
def test_each_reason_has_words(kind: str, about: dict[str, Any], en: str, zh: str) -> None:
    error = refused(kind, **about)
    assert error.text("en") == f"This can't run. {en}"
    assert error.text("zh") == f"无法运行。{zh}"


def test_a_picture_that_is_not_there_is_said_in_words() -> None:
    details = "image - Invalid image file: a.png"
    error = request_error(
        "custom_validation_failed",
        "Custom validation failed for node",
        details,
        input_name="image",
        received_value="a.png",
    )
    node = {"errors": [error], "dependent_outputs": ["7"], "class_type": "LoadImage"}
    found = PromptRefused(Validation({}, error=request_error("x", "y"), node_errors={"5": node}))
    assert found.text("zh") == "无法运行。image：没有“a.png”。请将其放入 input，或选择已有的文件。"


def test_what_is_wrong_before_there_are_nodes_is_said_as_well() -> None:
    error = PromptRefused(Validation({}, error=request_error("missing_node_type", "m", "d", class_type="Nope")))
    assert error.text("en") == "This can't run. There is no node 'Nope' here."


def test_braces_in_a_value_are_only_letters() -> None:
    error = refused("value_not_in_list", input_name="lora_name", received_value="{0} {x}", input_config=None)
    assert "'{0} {x}'" in error.text("en")
