"""How well picture and caption fit, by a CLIP or SigLIP model of the user's: a number of each picture, to filter by.

The models read 77 or 64 tokens; what is behind is cut. A number says little alone, much in comparison: sort by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from taggers.tool import CaptionerKind, CaptionTool, NumberType, batch_of, number_type, setting

SIMILARITY_TAG = "similarity"  # kept as a reading that never counts as a tag: filter with score:similarity<0.2


class SimilarityTool(CaptionTool):
    """A model that compares."""

    kind: Literal["similarity"] = "similarity"  # pyright: ignore[reportIncompatibleVariableOverride]
    model: str = setting(
        "",
        "Model",
        "模型",
        "Folder in models/clip_vision or models/captioners.",
        "models/clip_vision 或 models/captioners 中的文件夹。",
        True,
    )
    batch_size: int = batch_of(16)
    dtype: NumberType = number_type()

    @property
    def quantise(self) -> Literal["none"]:
        return "none"

    @property
    def always(self) -> bool:
        """Captions change meanwhile."""
        return True

    def instruction(self) -> str:
        return "{caption}"


def _recognise(config: Mapping[str, Any]) -> bool:
    return config.get("model_type") in ("clip", "siglip", "siglip2")


SIMILARITY = CaptionerKind(
    name="similarity",
    title="CLIP / SigLIP score",
    settings=SimilarityTool,
    reader="taggers.similarity_reader:open_similarity",
    recognise=_recognise,
    licence="that of the model",
    sources=("openai/clip-vit-large-patch14", "google/siglip2-so400m-patch14-384"),
)
