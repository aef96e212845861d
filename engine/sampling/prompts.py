"""Whether prompts were encoded for the model that is to read them: told by the widths of their text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.errors import GraphError
from engine.families.base import Model
from engine.families.discover import discover


class PromptOfOtherModel(GraphError):
    """`made`, and `made_zh`: for which families such text is, where one is known."""

    en = (
        "{model} is {title}, which reads text {need} wide (a token / pooled), but a prompt is {got}{made}. Encode it "
        "with the CLIP of {title}: connect that to the text encode node."
    )
    zh = (
        "{model} 是 {title}，它读取的文本宽度为 {need}（每个词元 / 池化），但提示词的宽度为 {got}{made_zh}。"
        "请用 {title} 的 CLIP 编码：将其连接到文本编码节点。"
    )


def check_prompts(model: Model, conditioning: Sequence[Sequence[Any]]) -> None:
    """Raises PromptOfOtherModel for an entry of a CONDITIONING link that `model` can't read."""
    need, need_pooled = model.family.text_widths(model)
    for cross, options in conditioning:
        pooled = options.get("pooled_output")
        got, got_pooled = cross.shape[-1], None if pooled is None else pooled.shape[-1]
        if got == need and (need_pooled is None or got_pooled is None or got_pooled == need_pooled):
            continue
        titles = [m.SPEC.title for m in discover().values() if m.SPEC.text_widths == (got, got_pooled)]
        raise PromptOfOtherModel(
            model=model.ref.title,
            title=model.family.spec.title,
            need=_in_words(need, need_pooled),
            got=_in_words(got, got_pooled),
            made=f", as of {', '.join(titles)}" if titles else "",
            made_zh=f"，即 {'、'.join(titles)} 的文本" if titles else "",
        )


def _in_words(width: int, pooled: int | None) -> str:
    return f"{width} / {'-' if pooled is None else pooled}"
