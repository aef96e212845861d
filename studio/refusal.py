"""A refused prompt as an error in both languages. ComfyUI's clients get the same as JSON, in ComfyUI's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.errors import GraphError, Language
from engine.graph.validation import Validation

MOST_REASONS = 5
_WORDS: dict[str, dict[Language, str]] = {
    "value_smaller_than_min": {"en": "{name} is {value}, less than {min}.", "zh": "{name} 为 {value}，小于 {min}。"},
    "value_bigger_than_max": {"en": "{name} is {value}, more than {max}.", "zh": "{name} 为 {value}，大于 {max}。"},
    "value_not_in_list": {"en": "{name}: there is no '{value}'.", "zh": "{name}：没有“{value}”。"},
    "invalid_input_type": {"en": "{name}: '{value}' can't be used here.", "zh": "{name}：此处不能使用“{value}”。"},
    "required_input_missing": {"en": "{name} is missing.", "zh": "缺少 {name}。"},
    "missing_node_type": {"en": "There is no node '{kind}' here.", "zh": "这里没有节点“{kind}”。"},
    "prompt_no_outputs": {"en": "It has no output.", "zh": "它没有输出节点。"},
    "dependency_cycle": {"en": "It goes in a circle: {details}.", "zh": "存在循环：{details}。"},
}
_ANY: dict[Language, str] = {"en": "{message}: {details}", "zh": "{message}：{details}"}


class PromptRefused(GraphError):
    """`found` is the answer of POST /prompt."""

    en = "This can't run. {reasons_en}"
    zh = "无法运行。{reasons_zh}"

    def __init__(self, found: Validation) -> None:
        self.found = found
        nodes = [error for node in found.node_errors.values() for error in node["errors"]]
        errors = (nodes or [found.error or {}])[:MOST_REASONS]
        super().__init__(**{f"reasons_{of}": " ".join(_words(error, of) for error in errors) for of in ("en", "zh")})


def _words(error: Mapping[str, Any], language: Language) -> str:
    about = error.get("extra_info") or {}
    config = about.get("input_config") or [None, {}]
    limits = config[1] if len(config) > 1 else {}
    template = _WORDS.get(error.get("type", ""), _ANY)[language]
    return template.format(
        name=about.get("input_name", ""),
        value=str(about.get("received_value", ""))[:120],
        min=limits.get("min"),
        max=limits.get("max"),
        kind=about.get("class_type", ""),
        message=error.get("message", ""),
        details=str(error.get("details", ""))[:300],
    )
