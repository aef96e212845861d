"""Which CLIP text encoder a file holds, where in it, and what its shapes do not tell. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.weights.header import Header

TOKENS = ("text_model.embeddings.token_embedding.weight", "embeddings.token_embedding.weight")
ALONE = ("", "text_encoder.", "cond_stage_model.transformer.")  # where one lies that is alone in a file


@dataclass(frozen=True)
class TextEncoder:
    """One text encoder of a family: its name in ComfyUI ("l"), the part of diffusers' folders it is, where it lies in
    a checkpoint, and fields of CLIPTextConfig."""

    name: str
    part: str  # "text_encoder": its prefix in diffusers' layout, and easel.<part> is its metadata
    prefixes: tuple[str, ...]  # of LDM's layout
    config: Mapping[str, Any]

    def place(self, header: Header) -> str | None:
        """Its prefix in a checkpoint, None where it is not there."""
        return place_of(header, (*self.prefixes, f"{self.part}."))


def place_of(header: Header, prefixes: Sequence[str]) -> str | None:
    """The first prefix under which a text encoder lies."""
    return next((p for p in prefixes if any(p + tokens in header for tokens in TOKENS)), None)


def kind_of(header: Header) -> str | None:
    """Which encoder is alone in a file, by its depth: OpenAI's CLIP-L has 12 layers, OpenCLIP's H 24 and G 32."""
    prefix = place_of(header, ALONE)
    if prefix is None:
        return None
    inner = next((p for p in ("text_model.encoder.layers.", "encoder.layers.") if header.has_prefix(prefix + p)), "")
    layers = len({name.split(".")[0] for name in header.under(prefix + inner)})
    return "g" if layers > 24 else "h" if layers > 12 else "l"
