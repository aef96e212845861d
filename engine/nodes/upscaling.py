"""Pictures made larger by networks, in tiles."""

from __future__ import annotations

import itertools
from typing import Annotated, Any

import torch
from torch import Tensor

from engine.graph.node import IMAGE, In, Models, NodeContext, Out, node
from engine.models.manager import NoRoom
from engine.nodes import tiling
from engine.nodes.loaders import file_digest
from engine.nodes.spandrel_models import UpscaleModel, Upscaler, load_upscaler

TILE, SMALLEST_TILE, OVERLAP = 512, 128, 32  # pixels
# Bytes of activations a pixel that goes in: 64 channels of float32 in a dozen layers at once. An estimate.
WORKING = 3072


def _digest(ctx: NodeContext, model_name: str) -> Any:
    return file_digest(ctx, "upscale_models", model_name)


@node(
    "UpscaleModelLoader",
    title="Load Upscale Model",
    title_zh="加载放大模型",
    category="loaders",
    outputs=[Out("UPSCALE_MODEL")],
    fingerprint=_digest,
)
def upscale_model_loader(
    ctx: NodeContext, model_name: Annotated[str, In(Models("upscale_models"))]
) -> tuple[UpscaleModel]:
    path = ctx.workspace.model_path("upscale_models", model_name)
    return (load_upscaler(ctx.models, path, allow_pickle=ctx.workspace.allow_pickle),)


@node(
    "ImageUpscaleWithModel",
    title="Upscale Image (using Model)",
    title_zh="用模型放大图像",
    category="image/upscaling",
    outputs=[Out("IMAGE")],
)
def image_upscale_with_model(
    ctx: NodeContext, upscale_model: Annotated[UpscaleModel, In("UPSCALE_MODEL")], image: IMAGE
) -> tuple[Tensor]:
    """An alpha channel is left out. Tiles become smaller where there is no room for them."""
    pixels = image[..., :3].movedim(-1, 1)
    if pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1)
    tile = TILE
    while True:
        try:
            larger = _in_tiles(ctx, upscale_model, pixels, tile)
        except (NoRoom, torch.OutOfMemoryError):
            if tile // 2 < SMALLEST_TILE:
                raise
            tile //= 2
            continue
        return (larger.movedim(1, -1).clamp(0, 1),)


def _in_tiles(ctx: NodeContext, model: UpscaleModel, pixels: Tensor, tile: int) -> Tensor:
    size = min(tile, pixels.shape[-2]) * min(tile, pixels.shape[-1])
    step, total = itertools.count(1), tiling.count(pixels.shape, (tile, tile), OVERLAP)
    with ctx.models.lease(model.ref, working=size * WORKING) as leased, torch.no_grad():
        network: Upscaler = leased[model.ref]

        def larger(part: Tensor) -> Tensor:
            ctx.interrupt_check()
            return network(part.to(leased.device))

        return tiling.tiled(
            pixels, larger, (tile, tile), OVERLAP, network.scale, 3, lambda: ctx.progress(next(step), total)
        )
