"""Nodes for Stable Diffusion 3: prompts for its three encoders, and the empty latent of models with 16 channels."""

from __future__ import annotations

from typing import Annotated, Any

import torch

from engine.graph.limits import MAX_BATCH, MAX_SIDE
from engine.graph.node import CLIP, In, NodeContext, Out, node
from engine.nodes.conditioning import conditioned

PIXELS_PER_CELL, CHANNELS = 8, 16

Text = Annotated[str, In("STRING", multiline=True, dynamic_prompts=True)]


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


@node(
    "CLIPTextEncodeSD3",
    title="CLIPTextEncodeSD3",
    title_zh="CLIP 文本编码（SD3）",
    category="advanced/conditioning",
    outputs=[Out("CONDITIONING")],
)
def clip_text_encode_sd3(
    ctx: NodeContext,
    clip: CLIP,
    clip_l: Text,
    clip_g: Text,
    t5xxl: Text,
    empty_padding: Annotated[str, In(["none", "empty_prompt"])],
) -> tuple[list[list[Any]]]:
    """A prompt for each encoder. "none": an encoder without one is left out, instead of encoding an empty prompt."""
    texts = {"l": clip_l, "g": clip_g, "t5xxl": t5xxl}
    if empty_padding == "none":
        texts = {name: text for name, text in texts.items() if text}
    return (conditioned(ctx, clip, texts),)
