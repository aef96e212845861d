"""Which CLIP text encoder a file holds, where in it, how a family reads it, and what its shapes do not tell.
Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from engine.weights import openclip
from engine.weights.header import Header

TOKENS = (
    "text_model.embeddings.token_embedding.weight",  # transformers
    "embeddings.token_embedding.weight",  # transformers before 4, and from 5 on
    openclip.FIRST,
)
ALONE = ("", "text_encoder.", "cond_stage_model.transformer.", "cond_stage_model.model.")  # alone in a file
_LAYERS = ("text_model.encoder.layers.", "encoder.layers.", "transformer.resblocks.")


@dataclass(frozen=True)
class TextEncoder:
    """One text encoder of a family: its name in ComfyUI ("l"), the part of diffusers' folders it is, where it lies in
    a checkpoint, and fields of CLIPTextConfig.

    layer: the state that is read, counted from the last (-1) of `depth` layers. normed: whether an earlier state than
    the last goes through the final norm. pad: what follows the end of a text. projected: whether the pooled text is
    multiplied by the file's projection.
    """

    name: str
    part: str  # "text_encoder": its prefix in diffusers' layout, and easel.<part> is its metadata
    prefixes: tuple[str, ...]  # of LDM's layout
    config: Mapping[str, Any] = field(repr=False)
    layer: int = -1
    normed: bool = True
    pad: Literal["end", "zero"] = "end"
    projected: bool = False
    depth: int = 12

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
    inner = next((p for p in _LAYERS if header.has_prefix(prefix + p)), "")
    layers = len({name.split(".")[0] for name in header.under(prefix + inner)})
    return "g" if layers > 24 else "h" if layers > 12 else "l"


_OPENAI = {"num_attention_heads": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_OPENCLIP = {"hidden_act": "gelu", "layer_norm_eps": 1e-5}

CLIP_L = TextEncoder("l", "text_encoder", ("cond_stage_model.transformer.",), _OPENAI)
CLIP_H = TextEncoder(
    name="h",
    part="text_encoder",
    prefixes=("cond_stage_model.model.",),
    config={**_OPENCLIP, "num_attention_heads": 16},
    layer=-2,
    pad="zero",
    projected=True,
    depth=24,
)
CLIP_G = TextEncoder(
    name="g",
    part="text_encoder_2",
    prefixes=("conditioner.embedders.1.model.",),
    config={**_OPENCLIP, "num_attention_heads": 20},
    layer=-2,
    normed=False,
    pad="zero",
    projected=True,
    depth=32,
)
