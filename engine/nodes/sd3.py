"""Nodes for Stable Diffusion 3, and the empty latent of models with 16 channels."""

from __future__ import annotations

from typing import Annotated, Any

import torch

from engine.graph.limits import MAX_BATCH, MAX_SIDE
from engine.graph.node import In, NodeContext, Out, node

PIXELS_PER_CELL, CHANNELS = 8, 16


@node(
    "EmptySD3LatentImage",
    title="EmptySD3LatentImage",
    title_zh="空潜变量图像（SD3）",
    category="latent/sd3",
    outputs=[Out("LATENT")],
)
def empty_sd3_latent_image(
    ctx: NodeContext,
    width: Annotated[int, In("INT", default=1024, min=16, max=MAX_SIDE, step=16)],
    height: Annotated[int, In("INT", default=1024, min=16, max=MAX_SIDE, step=16)],
    batch_size: Annotated[int, In("INT", default=1, min=1, max=MAX_BATCH)],
) -> tuple[dict[str, Any]]:
    """Zeros of 16 channels, as SD3 and Flux have them."""
    cells = (height // PIXELS_PER_CELL, width // PIXELS_PER_CELL)
    return ({"samples": torch.zeros(batch_size, CHANNELS, *cells)},)
