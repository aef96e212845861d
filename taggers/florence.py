"""Florence-2 (MIT): captions of three lengths, objects, regions, grounding of phrases and outlines, from 0.2 or 0.8 B.

A task is a question in plain words; coordinates come back as words `<loc_0>` to `<loc_999>`. Fine-tunes of it
(PromptGen) have task words of their own, which go to the model as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import model_validator

from taggers.tool import CaptionerKind, SampledTool, batch_of, longest_answer, setting

Gives = Literal["text", "tags", "boxes", "grounding", "quads", "polygons", "boxes or polygons"]


@dataclass(frozen=True)
class Task:
    """The question of a task; `{text}` is what it is asked about. `gives` says how the answer is read."""

    question: str
    gives: Gives


TASKS: dict[str, Task] = {
    "<CAPTION>": Task("What does the image describe?", "text"),
    "<DETAILED_CAPTION>": Task("Describe in detail what is shown in the image.", "text"),
    "<MORE_DETAILED_CAPTION>": Task("Describe with a paragraph what is shown in the image.", "text"),
    "<OD>": Task("Locate the objects with category name in the image.", "boxes"),
    "<DENSE_REGION_CAPTION>": Task("Locate the objects in the image, with their descriptions.", "boxes"),
    "<REGION_PROPOSAL>": Task("Locate the region proposals in the image.", "boxes"),
    "<CAPTION_TO_PHRASE_GROUNDING>": Task("Locate the phrases in the caption: {text}", "grounding"),
    "<REFERRING_EXPRESSION_SEGMENTATION>": Task("Locate {text} in the image with mask", "polygons"),
    "<OPEN_VOCABULARY_DETECTION>": Task("Locate {text} in the image.", "boxes or polygons"),
    "<REGION_TO_SEGMENTATION>": Task("What is the polygon mask of region {text}", "polygons"),
    "<REGION_TO_CATEGORY>": Task("What is the region {text}?", "text"),
    "<REGION_TO_DESCRIPTION>": Task("What does the region {text} describe?", "text"),
    "<REGION_TO_OCR>": Task("What text is in the region {text}?", "text"),
    "<OCR>": Task("What is the text in the image?", "text"),
    "<OCR_WITH_REGION>": Task("What is the text in the image, with regions?", "quads"),
    # task words of PromptGen, a fine-tune
    "<GENERATE_TAGS>": Task("<GENERATE_TAGS>", "tags"),
    "<MIXED_CAPTION>": Task("<MIXED_CAPTION>", "text"),
    "<MIXED_CAPTION_PLUS>": Task("<MIXED_CAPTION_PLUS>", "text"),
    "<ANALYZE>": Task("<ANALYZE>", "text"),
}
REGION_TASKS = tuple(name for name in TASKS if name.startswith("<REGION_TO_"))
TaskName = Literal[
    "<CAPTION>",
    "<DETAILED_CAPTION>",
    "<MORE_DETAILED_CAPTION>",
    "<OD>",
    "<DENSE_REGION_CAPTION>",
    "<REGION_PROPOSAL>",
    "<CAPTION_TO_PHRASE_GROUNDING>",
    "<REFERRING_EXPRESSION_SEGMENTATION>",
    "<OPEN_VOCABULARY_DETECTION>",
    "<REGION_TO_SEGMENTATION>",
    "<REGION_TO_CATEGORY>",
    "<REGION_TO_DESCRIPTION>",
    "<REGION_TO_OCR>",
    "<OCR>",
    "<OCR_WITH_REGION>",
    "<GENERATE_TAGS>",
    "<MIXED_CAPTION>",
    "<MIXED_CAPTION_PLUS>",
    "<ANALYZE>",
]


class FlorenceTool(SampledTool):
    """One task of Florence-2."""

    kind: Literal["florence2"] = "florence2"  # pyright: ignore[reportIncompatibleVariableOverride]
    task: TaskName = setting(
        "<MORE_DETAILED_CAPTION>",
        "Task",
        "任务",
        "What to ask: a caption, objects, phrases, outlines, text.",
        "询问内容：描述、物体、短语、轮廓或文字。",
        True,
    )
    text: str = setting(
        "{caption}",
        "About",
        "对象",
        "For tasks about something: a phrase, an expression, classes; {caption} is the picture's own.",
        "用于需要输入的任务：短语、表达或类别；{caption} 为图片自己的描述。",
        True,
        max_length=2000,
    )
    region: tuple[float, float, float, float] | None = setting(
        None,
        "Region",
        "区域",
        "For tasks about a region: left, top, right, bottom as shares of the picture. The answer becomes its label.",
        "用于区域任务：左、上、右、下，以图片边长的比例表示。回答将成为该区域的标签。",
    )
    num_beams: int = setting(3, "Beams", "束数", "More search more carefully.", "越大搜索越仔细。", ge=1, le=16)
    labels_as_tags: bool = setting(
        False,
        "Labels are tags",
        "标签化",
        "What objects are called is kept as tags of this tool as well.",
        "将物体名称同时保存为此工具的标签。",
    )
    max_new_tokens: int = longest_answer(1024)
    batch_size: int = batch_of(8)

    @model_validator(mode="after")
    def _is_about_a_region(self) -> Self:
        if self.task in REGION_TASKS and self.region is None and "<loc_" not in self.text + self.prompt:
            raise ValueError(f"{self.task} is about a region: draw one on a picture (请先在图片上画出区域)")
        if self.region is not None:
            left, top, right, bottom = self.region
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise ValueError(f"the region {self.region} must be left, top, right, bottom as shares from 0 to 1")
        return self

    @property
    def gives(self) -> Gives:
        return "text" if self.prompt.strip() else TASKS[self.task].gives

    @property
    def always(self) -> bool:
        """Asked about one region, it may be asked about another."""
        return self.region is not None

    def identity(self) -> dict[str, Any]:
        """All regions that one task was asked about are of one source."""
        return super(FlorenceTool, self.model_copy(update={"region": None})).identity()

    def instruction(self) -> str:
        about = self.text
        if self.region is not None:
            about = "".join(f"<loc_{min(999, max(0, int(share * 1000)))}>" for share in self.region)
        return TASKS[self.task].question.replace("{text}", about)


def _recognise(config: Mapping[str, Any]) -> bool:
    return config.get("model_type") == "florence2"


FLORENCE = CaptionerKind(
    name="florence2",
    title="Florence-2",
    settings=FlorenceTool,
    reader="taggers.florence_reader:open_florence",
    recognise=_recognise,
    licence="MIT",
    sources=(
        "florence-community/Florence-2-large-ft",
        "microsoft/Florence-2-large",
        "MiaoshouAI/Florence-2-large-PromptGen-v2.0",
    ),
)
