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
    "value_not_in_list": {"en": "{name}: there is no '{value}'. {remedy}", "zh": "{name}：没有“{value}”。{remedy}"},
    "custom_validation_failed": {"en": "{name}: {details}.", "zh": "{name}：{details}。"},
    "invalid_input_type": {"en": "{name}: '{value}' can't be used here.", "zh": "{name}：此处不能使用“{value}”。"},
    "required_input_missing": {
        "en": "{name} is missing: set it, or tie it to a node.",
        "zh": "缺少 {name}：请填写，或连接到某个节点。",
    },
    "missing_node_type": {"en": "There is no node '{kind}' here.", "zh": "这里没有节点“{kind}”。"},
    "prompt_no_outputs": {"en": "It has no output.", "zh": "它没有输出节点。"},
    "return_type_mismatch": {
        "en": "{name} can't take what is linked to it: it gives {received}, and {wanted} is needed.",
        "zh": "{name} 不能接受所连接的内容：得到 {received}，需要 {wanted}。",
    },
    "bad_linked_input": {"en": "{name}: its link is broken.", "zh": "{name}：连接已损坏。"},
    "exception_during_validation": {
        "en": "{name} is linked to what is not there: {details}.",
        "zh": "{name} 连接到了不存在的位置：{details}。",
    },
    "invalid_dynamic_input": {
        "en": "{name} decides which other inputs there are: set it at the node, without a link.",
        "zh": "{name} 决定还有哪些输入：请直接在节点上设置，不要连接。",
    },
    "loop_without_start": {"en": "An End Loop has no Start Loop.", "zh": "有循环结束节点没有对应的开始节点。"},
    "loop_without_end": {"en": "A Start Loop has no End Loop.", "zh": "有循环开始节点没有对应的结束节点。"},
    "loop_closed_twice": {"en": "A loop has two End Loops.", "zh": "一个循环有两个结束节点。"},
    "loop_value_escapes": {
        "en": "A value leaves a loop beside its End Loop ({details}).",
        "zh": "有值没有经过循环结束节点就离开了循环（{details}）。",
    },
    "loops_overlap": {"en": "Two loops overlap ({details}).", "zh": "两个循环相互交叉（{details}）。"},
    "dependency_cycle": {"en": "It goes in a circle: {details}.", "zh": "存在循环：{details}。"},
}
_WORDS["exception_during_inner_validation"] = _WORDS["exception_during_validation"]
_FOLDERS = {  # where a file is looked for, by the input that names it
    "ckpt_name": "models/checkpoints",
    "unet_name": "models/diffusion_models",
    "clip_name": "models/text_encoders",
    "vae_name": "models/vae",
    "lora_name": "models/loras",
    "control_net_name": "models/controlnet",
    "style_model_name": "models/style_models",
    "model_name": "models/upscale_models",
    "image": "input",
}
_FILE: dict[Language, str] = {
    "en": "Put it into {folder}, or choose one that is there.",
    "zh": "请将其放入 {folder}，或选择已有的文件。",
}
_CHOICE: dict[Language, str] = {"en": "Choose one that is listed.", "zh": "请从列表中选择。"}
_NO_PICTURE = "Invalid image file"  # how nodes say that a picture is not there
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
    kind, details = error.get("type", ""), str(error.get("details", ""))[:300]
    if kind == "custom_validation_failed" and _NO_PICTURE in details:
        kind = "value_not_in_list"
    if kind == "value_not_in_list" and about.get("received_value") == "":
        kind = "required_input_missing"
    name = str(about.get("input_name", ""))
    folder = _FOLDERS.get(name.rstrip("1234"))
    template = _WORDS.get(kind, _ANY)[language]
    return template.format(
        name=name,
        value=str(about.get("received_value", ""))[:120],
        min=limits.get("min"),
        max=limits.get("max"),
        kind=about.get("class_type", ""),
        message=error.get("message", ""),
        received=about.get("received_type", ""),
        wanted=config[0] if isinstance(config[0], str) else "COMBO",
        details=details,
        remedy=_FILE[language].format(folder=folder) if folder else _CHOICE[language],
    )
