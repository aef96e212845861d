"""What a "tag" job may be told. Torch-free: the server checks it and draws its form from it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.dataset.captions import CaptionRules


class TagSettings(BaseModel):
    """One run of one tagger over a dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str = Field(description="Name of the dataset.")
    tagger: str = Field(description="Name of a tagger in models/taggers.")
    thresholds: dict[str, float] = Field(
        {}, description="Score above which a tag counts, by category; those left out are the model's own."
    )
    mcut: tuple[str, ...] | None = Field(
        None, description="Categories cut at the largest gap of their scores instead; the model's own when left out."
    )
    keep: bool = Field(False, description="Keep these thresholds and MCut with the model, for other datasets.")
    overwrite: bool = Field(False, description="Read pictures again that this model has read with these settings.")
    batch_size: int = Field(8, ge=1, le=256, description="Pictures in one run of the model.")
    threads: int = Field(0, ge=0, le=64, description="Threads that decode pictures; 0 chooses by the machine.")
    floor: float = Field(
        0.05, ge=0.0, lt=1.0, description="Scores up to this are not stored; thresholds can be moved down to it later."
    )
    pictures: tuple[int, ...] | None = Field(None, description="Only these pictures, by id; all when left out.")
    captions: CaptionRules | None = Field(None, description="Caption rules to keep with the dataset.")
    export: Literal["", ".txt", ".caption"] = Field(
        "", description="Write caption files beside the pictures at the end."
    )
