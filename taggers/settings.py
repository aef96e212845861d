"""What a "tag" job may be told. Torch-free: the server checks it and draws its form from it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from engine.dataset.captions import CaptionRules
from taggers.endpoint import EndpointTool
from taggers.florence import FlorenceTool
from taggers.joycaption import JoyCaptionTool
from taggers.minicpm import MiniCpmTool
from taggers.qwen_vl import QwenTool
from taggers.similarity import SimilarityTool


class _Onnx(BaseModel):
    """Settings of one ONNX tagger."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    thresholds: dict[str, float] = Field(
        {}, description="Score above which a tag counts, by category; those left out are the model's own."
    )
    mcut: tuple[str, ...] | None = Field(
        None, description="Categories cut at the largest gap of their scores instead; the model's own when left out."
    )
    keep: bool = Field(False, description="Keep these thresholds and MCut with the model, for other datasets.")
    weight: float | None = Field(None, ge=0.0, le=100.0, description="Its part in a weighted vote; 1 when left out.")
    subtracts: bool | None = Field(None, description="Take away what it reads from what the other tools read.")
    batch_size: int = Field(8, ge=1, le=256, description="Pictures in one run of the model.")
    floor: float = Field(
        0.05, ge=0.0, lt=1.0, description="Scores up to this are not stored; thresholds can be moved down to it later."
    )


class OnnxTool(_Onnx):
    """One ONNX tagger among the tools of a run."""

    kind: Literal["onnx"] = "onnx"
    tagger: str = Field(description="Name of a tagger in models/taggers.")


Captioner = FlorenceTool | JoyCaptionTool | QwenTool | MiniCpmTool | EndpointTool | SimilarityTool
Tool = Annotated[OnnxTool | Captioner, Field(discriminator="kind")]


class Merge(BaseModel):
    """How the tags of several tools count together. What each of them read stays as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    how: Literal["union", "intersection", "vote"] = Field(
        "union", description="A tag counts that one tool admits, that all admit, or that has enough of the weight."
    )
    share: float = Field(0.5, gt=0.0, le=1.0, description="Share of the tools' weight that a vote needs.")


class TagSettings(_Onnx):
    """One run over a dataset: a tagger (`tagger` and the settings beside it), or several tools one after the other."""

    dataset: str = Field(description="Name of the dataset.")
    tagger: str = Field("", description="Name of a tagger in models/taggers.")
    tools: tuple[Tool, ...] = Field((), description="More tools, in order; captioners can be told what taggers read.")
    overwrite: bool = Field(False, description="Read pictures again that this model has read with these settings.")
    threads: int = Field(0, ge=0, le=64, description="Threads that decode pictures; 0 chooses by the machine.")
    pictures: tuple[int, ...] | None = Field(None, description="Only these pictures, by id; all when left out.")
    merge: Merge | None = Field(None, description="How tags of several tools count together, kept with the dataset.")
    captions: CaptionRules | None = Field(None, description="Caption rules to keep with the dataset.")
    export: Literal["", ".txt", ".caption"] = Field(
        "", description="Write caption files beside the pictures at the end."
    )
    ray: str = Field("", max_length=300, description="Address of a Ray cluster that does the reading; empty: here.")

    @model_validator(mode="after")
    def _has_a_tool(self) -> TagSettings:
        if not self.tagger and not self.tools:
            raise ValueError("name a tagger, or at least one of tools")
        return self

    def all_tools(self) -> list[OnnxTool | Captioner]:
        """The tagger first, then the others."""
        shared: dict[str, Any] = {name: getattr(self, name) for name in _Onnx.model_fields}
        first = [OnnxTool(tagger=self.tagger, **shared)] if self.tagger else []
        return [*first, *self.tools]
