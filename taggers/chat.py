"""Captioners that one talks to: settings that all of them share. Torch-free."""

from __future__ import annotations

from taggers.tool import SampledTool, setting

PROMPT = (
    "Describe this image in one paragraph: what is shown, where, how it is lit, from which angle, and in what style."
)


class ChatTool(SampledTool):
    """A chat model that is asked about one picture at a time."""

    system: str = setting(
        "",
        "System prompt",
        "系统提示词",
        "Said before the question; empty uses the model's own.",
        "置于问题之前；留空则使用模型自带的。",
        max_length=4000,
    )
    start_with: str = setting(
        "",
        "Answer begins with",
        "回答开头",
        "Words put into the model's mouth; they are part of the caption.",
        "预先替模型写好的开头，会成为描述的一部分。",
        max_length=500,
    )

    def instruction(self) -> str:
        return PROMPT
