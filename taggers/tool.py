"""What every captioner has in common: the settings of a run, how its prompt comes about, and what it answers.

A kind of captioner is one file with a subclass of CaptionTool and its CaptionerKind. Torch-free: the server checks
settings with it and draws its form from it; `CaptionerKind.reader` names what the worker imports.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.dataset.regions import Region

CONTEXT = "These tags were read in the image, the surest first; use those that are right: {tags}."
NumberType = Literal["auto", "bfloat16", "float16", "float32"]
VARIABLES = ("tags", "characters", "caption", "name", "folder", "trigger")


def setting(default: Any, title: str, zh: str, help: str, help_zh: str, basic: bool = False, **limits: Any) -> Any:
    """A field of a tool's settings, with its words in both languages."""
    extra: dict[str, Any] = {"title_zh": zh, "help_zh": help_zh, "group": "basic" if basic else "advanced"}
    return Field(default, title=title, description=help, json_schema_extra=extra, **limits)


def longest_answer(tokens: int) -> Any:
    help, zh = "In tokens. One that is cut there is marked.", "以词元计；被截断的回答会标出。"
    return setting(tokens, "Longest answer", "最长回答", help, zh, ge=1, le=8192)


def batch_of(pictures: int) -> Any:
    help, zh = "Pictures asked about at once.", "一次处理的图片数。"
    return setting(pictures, "Batch", "批量", help, zh, ge=1, le=256)


def number_type() -> Any:
    help, zh = "auto: float32 on the CPU, half on a GPU.", "auto：CPU 用 float32，GPU 用半精度。"
    return setting("auto", "Number type", "数值类型", help, zh)


class CaptionTool(BaseModel):
    """Settings that all captioners share."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    # what does not change what is read, and so is no part of the source's identity
    BESIDE: ClassVar[frozenset[str]] = frozenset({"model", "batch_size", "replace"})

    kind: str
    model: str = setting("", "Model", "模型", "Folder in models/captioners.", "models/captioners 中的文件夹。", True)
    prompt: str = setting(
        "",
        "Prompt",
        "提示词",
        "Asked instead of the prompt that the choices make. {tags}, {characters}, {caption}, {name}, {folder} and "
        "{trigger} are filled in for each picture.",
        "代替由上述选项生成的提示词。{tags}、{characters}、{caption}、{name}、{folder}、{trigger} 会按图片填入。",
        True,
        max_length=8000,
    )
    use_tags: bool = setting(
        False,
        "Tell it the tags",
        "提供已有标签",
        "Add the picture's tags to the prompt, so that names and details are right.",
        "将图片已有标签加入提示词，使名称和细节更准确。",
        True,
    )
    most_tags: int = setting(
        40,
        "At most so many tags",
        "标签上限",
        "Tags told, the surest first.",
        "最多提供的标签数，按可信度排序。",
        ge=1,
        le=400,
    )
    batch_size: int = batch_of(4)
    write: Literal["caption", "tags"] = setting(
        "caption",
        "Answer is",
        "答案作为",
        "A caption, or a comma-separated list kept as tags of this tool.",
        "作为描述，或作为以逗号分隔、归于此工具的标签。",
    )
    replace: Literal["all but mine", "all", "empty only", "none"] = setting(
        "all but mine",
        "Becomes the caption of",
        "替换当前描述",
        "Which captions it takes the place of; the versions before stay. 'none' only keeps it as a version.",
        "替换哪些图片的当前描述；旧版本会保留。“none”仅保存为一个版本。",
    )

    @property
    def always(self) -> bool:
        """Whether it reads a picture again that it has read with these settings."""
        return False

    def instruction(self) -> str:
        """The prompt that the choices make."""
        return ""

    def asked(self) -> str:
        """The prompt before a picture's own words are filled in: the user's own or that of the choices."""
        text = self.prompt.strip() or self.instruction()
        if self.use_tags and "{tags}" not in text:
            text = f"{text} {CONTEXT}".strip()
        return text

    def identity(self) -> dict[str, Any]:
        """What makes two runs of one model answers of the same source."""
        return self.model_dump(mode="json", exclude=set(self.BESIDE), exclude_defaults=True) | {"asked": self.asked()}


class SampledTool(CaptionTool):
    """Settings of models that this program runs itself, token by token."""

    max_new_tokens: int = longest_answer(256)
    temperature: float = setting(
        0.0, "Temperature", "温度", "0 always takes the likeliest word.", "0 表示总是选择最可能的词。", ge=0.0, le=2.0
    )
    top_p: float = setting(
        1.0,
        "Top-p",
        "Top-p",
        "Only the likeliest words of this share are drawn from.",
        "仅从累计概率达到此值的词中抽取。",
        gt=0.0,
        le=1.0,
    )
    seed: int = setting(
        0,
        "Seed",
        "种子",
        "With a temperature: the same seed gives a picture the same answer, in whatever batch.",
        "温度大于 0 时：相同种子对同一图片给出相同回答，与批量无关。",
        ge=0,
        lt=2**63,
    )
    dtype: NumberType = number_type()
    quantise: Literal["none", "nf4", "int8"] = setting(
        "none",
        "Quantise",
        "量化",
        "Keep the language model in 4 or 8 bits (needs bitsandbytes); what sees stays whole.",
        "将语言模型以 4 或 8 位保存（需要 bitsandbytes）；视觉部分保持原精度。",
    )


@dataclass(frozen=True)
class About:
    """A picture's own words for prompts."""

    name: str = ""
    folder: str = ""
    tags: Sequence[str] = ()
    characters: Sequence[str] = ()
    caption: str = ""
    trigger: str = ""
    key: str = ""  # what the picture shows, for draws


def filled(template: str, about: About, most_tags: int = 40) -> str:
    """The template with a picture's words in it. Other braces stay; a list that is empty reads 'none'."""
    words = {
        "tags": ", ".join(about.tags[:most_tags]) or "none",
        "characters": ", ".join(about.characters) or "none",
        "caption": about.caption,
        "name": about.name,
        "folder": about.folder,
        "trigger": about.trigger,
    }
    return re.sub(r"\{(" + "|".join(VARIABLES) + r")\}", lambda found: words[found[1]], template)


@dataclass(frozen=True)
class Answer:
    """What a captioner says of one picture. `cut`: it had not ended when the longest answer was reached. `score`: how
    well picture and caption fit, of a model that compares them. `more`: its regions come beside those that this tool
    found before."""

    text: str = ""
    tags: tuple[str, ...] | None = None
    regions: tuple[Region, ...] | None = None
    cut: bool = False
    score: float | None = None
    more: bool = False


@dataclass(frozen=True)
class CaptionerKind:
    """One kind of captioner. `recognise(config)`: whether a folder's config.json is of it; endpoints have no folder."""

    name: str
    title: str
    settings: type[CaptionTool]
    reader: str  # "module:function", imported in the worker
    recognise: Callable[[Mapping[str, Any]], bool] | None
    licence: str
    sources: tuple[str, ...] = ()
    note: str = ""
    note_zh: str = ""
