"""Nodes for models that paint into a picture: what they are shown beside the prompt.

A mask is 1 where the picture is made anew. UNets made for it (families/parts/unet_family.py) take the picture and the
mask as more channels of their input; any other model gets a latent with a noise mask.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn import functional

from engine.families.base import Vae
from engine.graph.node import CONDITIONING, IMAGE, MASK, VAE, In, NodeContext, Out, node
from engine.nodes.conditioning_where import Entries, with_values
from engine.nodes.vae import cropped, encoded_picture

GREY = 0.5
PAIR_AND_LATENT = [Out("CONDITIONING", "positive"), Out("CONDITIONING", "negative"), Out("LATENT", "latent")]


@node(
    "VAEEncodeForInpaint",
    title="VAE Encode (for Inpainting)",
    title_zh="VAE 编码（局部重绘）",
    category="latent/inpaint",
    outputs=[Out("LATENT")],
)
def vae_encode_for_inpaint(
    ctx: NodeContext,
    pixels: IMAGE,
    vae: VAE,
    mask: MASK,
    grow_mask_by: Annotated[int, In("INT", default=6, min=0, max=64, step=1)],
) -> tuple[dict[str, Any]]:
    """Grey where the mask is, so that nothing of the picture remains there; the noise mask reaches further out."""
    image, shape = _cut(pixels, mask, vae)
    noise_mask = _grown(shape, grow_mask_by).round()
    return ({"samples": encoded_picture(ctx, vae, _greyed(image, shape)), "noise_mask": noise_mask},)


@node(
    "InpaintModelConditioning",
    title="InpaintModelConditioning",
    title_zh="局部重绘模型条件",
    category="conditioning/inpaint",
    outputs=PAIR_AND_LATENT,
)
def inpaint_model_conditioning(
    ctx: NodeContext,
    positive: CONDITIONING,
    negative: CONDITIONING,
    vae: VAE,
    pixels: IMAGE,
    mask: MASK,
    noise_mask: Annotated[
        bool,
        In(
            "BOOLEAN",
            default=True,
            tooltip="Keep the picture as it is outside the mask. Off leaves that to the model.",
        ),
    ],
) -> tuple[Entries, Entries, dict[str, Any]]:
    """For models made for inpainting: they are shown the picture, grey where the mask is, and the mask."""
    image, shape = _cut(pixels, mask, vae)
    shown = {"concat_latent_image": encoded_picture(ctx, vae, _greyed(image, shape)), "concat_mask": shape}
    latent: dict[str, Any] = {"samples": encoded_picture(ctx, vae, image)}
    if noise_mask:
        latent["noise_mask"] = shape
    return with_values(positive, shown), with_values(negative, shown), latent


@node(
    "InstructPixToPixConditioning",
    title="InstructPixToPixConditioning",
    title_zh="InstructPix2Pix 条件",
    category="conditioning/instructpix2pix",
    outputs=PAIR_AND_LATENT,
)
def instruct_pix_to_pix_conditioning(
    ctx: NodeContext, positive: CONDITIONING, negative: CONDITIONING, vae: VAE, pixels: IMAGE
) -> tuple[Entries, Entries, dict[str, Any]]:
    """For models that change a picture by an instruction: they are shown the picture and begin with an empty latent."""
    picture = encoded_picture(ctx, vae, pixels)
    shown = {"concat_latent_image": picture}
    return with_values(positive, shown), with_values(negative, shown), {"samples": torch.zeros_like(picture)}


def _cut(pixels: Tensor, mask: Tensor, vae: Vae) -> tuple[Tensor, Tensor]:
    """The picture cut to whole latent cells, and the mask of any size as (batch, 1, height, width) over it."""
    height, width = pixels.shape[1:3]
    over = functional.interpolate(mask.reshape(-1, 1, *mask.shape[-2:]), size=(height, width), mode="bilinear")
    return cropped(pixels, vae.factor), cropped(over.movedim(1, -1), vae.factor).movedim(-1, 1)


def _greyed(image: Tensor, mask: Tensor) -> Tensor:
    kept = (1.0 - mask.round()).movedim(1, -1)
    return (image[..., :3] - GREY) * kept + GREY


def _grown(mask: Tensor, by: int) -> Tensor:
    """Wider by about half of `by` pixels on each side."""
    if by == 0:
        return mask
    window = mask.new_ones((1, 1, by, by))
    grown = functional.conv2d(mask.round(), window, padding=math.ceil((by - 1) / 2)).clamp(0, 1)
    return grown[..., : mask.shape[-2], : mask.shape[-1]]
