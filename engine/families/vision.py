"""CLIP_VISION links: encoders that see pictures. Torch-free up to where one is read; they belong to no family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.families.parts.stored import StoredPart
from engine.weights.lora import title_of
from engine.weights.vision import VisionKind, in_transformers_names, module_name, vision_config, vision_kind

if TYPE_CHECKING:
    import torch
    from torch import nn

    from engine.models.manager import ModelManager, ModelRef

Mean = tuple[float, float, float]
# Of pictures in 0..1, as the encoders were trained: OpenAI's numbers, and SigLIP's.
NORMS: Mapping[VisionKind, tuple[Mean, Mean]] = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "siglip": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


@dataclass(frozen=True)
class ClipVision:
    """A CLIP_VISION link. It sees squares of `size` pixels."""

    ref: ModelRef
    kind: VisionKind
    size: int
    config: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class VisionOutput:
    """A CLIP_VISION_OUTPUT link, in float32 on the host. last_hidden_state (batch, tokens, width), of SigLIP normed;
    penultimate_hidden_states alike, of the layer before; image_embeds (batch, width) of CLIP's projection, of SigLIP
    its last state."""

    last_hidden_state: torch.Tensor
    penultimate_hidden_states: torch.Tensor
    image_embeds: torch.Tensor


def load_vision(manager: ModelManager, path: Path, *, allow_pickle: bool = False) -> ClipVision:
    """Registers it with the manager; only its header is read. Raises NoVisionEncoder."""
    from engine.weights.load import open_header

    header = in_transformers_names(open_header(path, allow_pickle=allow_pickle))
    kind = vision_kind(header)
    config = vision_config(header, kind)

    def build(config: Mapping[str, Any]) -> nn.Module:
        from engine.families.parts import vision

        return vision.build(kind, config)

    part = StoredPart(header, "other", "", config, lambda name: module_name(name, kind), build=build)
    ref = part.register(manager, title_of(path, header.metadata))
    return ClipVision(ref, kind, int(config["image_size"]), config)
