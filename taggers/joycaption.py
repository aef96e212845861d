"""JoyCaption (LLaVA: SigLIP2 and Llama 3.1 8B): types x lengths x options, each a sentence that it was trained on.

The prompt is text put together from configs/captioners/joycaption.toml and may be edited. The Llama 3.1 Community
License applies to the weights: models made with its captions are to say "Built with Llama".
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from taggers.chat import ChatTool
from taggers.tool import CaptionerKind, batch_of, longest_answer, setting

if TYPE_CHECKING:
    from engine.models.manager import ModelManager
    from taggers.chat_reader import ChatReader
    from taggers.folder import ModelFolder

FILE = Path(__file__).resolve().parent.parent / "configs" / "captioners" / "joycaption.toml"
TypeName = Literal[
    "Descriptive",
    "Descriptive (Casual)",
    "Straightforward",
    "Stable Diffusion Prompt",
    "MidJourney",
    "Danbooru tag list",
    "e621 tag list",
    "Rule34 tag list",
    "Booru-like tag list",
    "Art Critic",
    "Product Listing",
    "Social Media Post",
]


class CaptionType(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    zh: str
    tags: bool
    any: str
    words: str
    named: str


class Option(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    zh: str
    says: str


class Span(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    first: int = Field(alias="from")
    last: int = Field(alias="to")
    step: int


class Matrix(BaseModel):
    """Everything JoyCaption can be asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lengths: tuple[str, ...]
    words: Span
    system: str
    types: tuple[CaptionType, ...]
    options: tuple[Option, ...]

    def all_lengths(self) -> list[str]:
        """Named ones, then numbers of words."""
        return [*self.lengths, *map(str, range(self.words.first, self.words.last + 1, self.words.step))]


@functools.cache
def matrix() -> Matrix:
    return Matrix.model_validate(tomllib.loads(FILE.read_text("utf-8")))


class JoyCaptionTool(ChatTool):
    """What to ask JoyCaption."""

    kind: Literal["joycaption"] = "joycaption"  # pyright: ignore[reportIncompatibleVariableOverride]
    type: TypeName = setting("Descriptive", "Type", "类型", "What kind of text.", "文本类型。", True)
    length: str = setting(
        "long", "Length", "长度", "A named length, or a number of words.", "长度名称或单词数。", True, max_length=20
    )
    options: tuple[str, ...] = setting(
        (), "Options", "附加选项", "What to mention, and what not.", "应提及或不提及的内容。", True
    )
    person: str = setting(
        "",
        "Name of the person",
        "人物名字",
        "For the option that calls people by name; {characters} are those of the tags.",
        "用于“称呼人物名字”；{characters} 为标签中的角色。",
        True,
        max_length=200,
    )
    max_new_tokens: int = longest_answer(512)
    temperature: float = setting(
        0.6, "Temperature", "温度", "0 always takes the likeliest word.", "0 表示总是选择最可能的词。", ge=0.0, le=2.0
    )
    top_p: float = setting(
        0.9,
        "Top-p",
        "Top-p",
        "Only the likeliest words of this share are drawn from.",
        "仅从累计概率达到此值的词中抽取。",
        gt=0.0,
        le=1.0,
    )
    batch_size: int = batch_of(4)

    @field_validator("length")
    @classmethod
    def _known_length(cls, value: str) -> str:
        if value not in matrix().all_lengths():
            raise ValueError(f"known are {', '.join(matrix().lengths)}, and 20 to 260 in tens")
        return value

    @field_validator("options")
    @classmethod
    def _known_options(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = [option.name for option in matrix().options]
        for name in value:
            if name not in known:
                raise ValueError(f"there is no option {name!r}; known are {', '.join(known)}")
        return value

    @property
    def gives_tags(self) -> bool:
        return not self.prompt.strip() and next(one for one in matrix().types if one.name == self.type).tags

    def instruction(self) -> str:
        chosen = next(one for one in matrix().types if one.name == self.type)
        row = chosen.any if self.length == "any" else chosen.words if self.length.isdigit() else chosen.named
        says = {option.name: option.says for option in matrix().options}
        text = " ".join([row, *(says[name] for name in self.options)])
        for name, value in (("word_count", self.length), ("length", self.length), ("name", self.person)):
            text = text.replace("{" + name + "}", value)
        return text


def open_joycaption(manager: ModelManager, folder: ModelFolder, tool: JoyCaptionTool) -> ChatReader:
    from taggers.chat_reader import ChatReader, Habits

    size = int((folder.config().get("vision_config") or {}).get("image_size") or 384)
    habits = Habits(
        # its template is written for plain text and puts the picture's place in by itself
        plain_text=True,
        system=matrix().system,
        one_start=True,
        # squashed with Lanczos, as its author does
        squash=size,
    )
    return ChatReader(manager, folder, tool, habits, gives_tags=tool.gives_tags)


def _recognise(config: Mapping[str, Any]) -> bool:
    seen = config.get("vision_config") or {}
    return config.get("model_type") == "llava" and str(seen.get("model_type", "")).startswith("siglip")


JOYCAPTION = CaptionerKind(
    name="joycaption",
    title="JoyCaption",
    settings=JoyCaptionTool,
    reader="taggers.joycaption:open_joycaption",
    recognise=_recognise,
    licence="Llama 3.1 Community License",
    sources=("fancyfeast/llama-joycaption-beta-one-hf-llava",),
    note="Follows its own prompts only. Say 'Built with Llama' where you publish what you made with it.",
    note_zh="仅遵循其自带的提示词。发布成果时请注明“Built with Llama”。",
)
