"""Vision encoders of transformers: built on meta, pictures made as they were trained, run to what graphs use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, SiglipVisionConfig, SiglipVisionModel

from engine.families.vision import NORMS, VisionOutput
from engine.weights.vision import VisionKind


def build(kind: VisionKind, config: Mapping[str, Any]) -> nn.Module:
    """The skeleton on meta; its position_ids are real, since no file has them."""
    config = dict(config)
    projection = config.pop("projection", "linear")
    module: Any
    with torch.device("meta"):
        if kind == "siglip":
            module = SiglipVisionModel(SiglipVisionConfig(**config))
        else:
            module = CLIPVisionModelWithProjection(CLIPVisionConfig(**config))
            if projection == "matrix":
                shape = (module.config.hidden_size, module.config.projection_dim)
                module.visual_projection = Projection(torch.empty(shape))
    embeddings = module.embeddings if kind == "siglip" else module.vision_model.embeddings
    positions = torch.arange(embeddings.num_positions).expand((1, -1))
    embeddings.register_buffer("position_ids", positions, persistent=False)
    return cast(nn.Module, module)


class Projection(nn.Module):
    """OpenCLIP's: a matrix that the pooled state is multiplied by, where transformers has a linear layer."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(weight, requires_grad=False)

    def forward(self, pooled: Tensor) -> Tensor:
        return pooled @ self.matrix


def prepared(pixels: Tensor, kind: VisionKind, size: int, crop: bool) -> Tensor:
    """(batch, height, width, channels) in 0..1 -> (batch, 3, size, size): the middle of it, or all of it squeezed into
    a square, in 256 levels and normed."""
    picture = pixels[..., :3].movedim(-1, 1)
    if picture.shape[1] == 1:
        picture = picture.expand(-1, 3, -1, -1)
    height, width = picture.shape[-2:]
    if (height, width) != (size, size):
        scale = size / min(height, width)
        sides = (round(scale * height), round(scale * width)) if crop else (size, size)
        picture = functional.interpolate(picture, size=sides, mode="bicubic", antialias=True)
        y, x = (sides[0] - size) // 2, (sides[1] - size) // 2
        picture = picture[..., y : y + size, x : x + size]
    picture = (picture * 255.0).clamp(0, 255).round() / 255.0
    mean, deviation = (picture.new_tensor(row).view(3, 1, 1) for row in NORMS[kind])
    return (picture - mean) / deviation


def run(module: nn.Module, kind: VisionKind, pictures: Tensor) -> VisionOutput:
    """Pictures as `prepared` gives them, on the module's device."""
    model = cast(Any, module)
    pictures = pictures.to(next(module.parameters()).dtype)
    found = model(pixel_values=pictures, output_hidden_states=True)
    last = found.last_hidden_state
    embeds = last if kind == "siglip" else found.image_embeds
    return VisionOutput(*(state.float().cpu() for state in (last, found.hidden_states[-2], embeds)))
