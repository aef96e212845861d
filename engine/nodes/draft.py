"""Stand-ins for drafts (engine/graph/draft.py says for which nodes): real shapes, no model is loaded.

Not listed to clients; a draft puts them in.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn import functional

from engine.families.base import Clip, LatentFormat, Vae
from engine.graph.node import CONDITIONING, LATENT, MODEL, In, NodeContext, Out, node
from engine.nodes.conditioning import conditioning_of


@node("DraftTextEncode", category="draft", outputs=[Out("CONDITIONING")], internal=True)
def draft_text_encode(
    ctx: NodeContext, text: Annotated[str, In("STRING")], clip: Annotated[Clip, In("CLIP")]
) -> tuple[list[Any]]:
    """Reads the prompt as the text encoder would - weights, chunks, words - and gives zeros of its shape."""
    return (conditioning_of(clip.family.draft_prompt(clip, text)),)


@node("DraftSampler", category="draft", outputs=[Out("LATENT")], internal=True)
def draft_sampler(
    ctx: NodeContext, model: MODEL, positive: CONDITIONING, negative: CONDITIONING, latent_image: LATENT
) -> tuple[dict[str, Any]]:
    """Hands the latent on."""
    return (latent_image,)


@node("DraftSamplerCustom", category="draft", outputs=[Out("LATENT"), Out("LATENT")], internal=True)
def draft_sampler_custom(ctx: NodeContext, latent_image: LATENT) -> tuple[dict[str, Any], dict[str, Any]]:
    return latent_image, latent_image


@node("DraftDecode", category="draft", outputs=[Out("IMAGE")], internal=True)
def draft_decode(ctx: NodeContext, samples: LATENT, vae: Annotated[Vae, In("VAE")]) -> tuple[Tensor]:
    """Latent to RGB by the family's 3 x c matrix, every cell a square."""
    latents = (samples["samples"].float() - vae.latent.shift) * vae.latent.scale
    rgb, bias = _rgb(vae.latent)
    pixels = (torch.einsum("bchw,cr->brhw", latents, rgb) + bias.reshape(1, 3, 1, 1)).clamp(-1, 1) / 2 + 0.5
    large = functional.interpolate(pixels, scale_factor=vae.factor, mode="nearest")
    return (large.movedim(1, -1),)


@node("DraftEncode", category="draft", outputs=[Out("LATENT")], internal=True)
def draft_encode(
    ctx: NodeContext, pixels: Annotated[Tensor, In("IMAGE")], vae: Annotated[Vae, In("VAE")]
) -> tuple[dict[str, Any]]:
    """The way back, as well as three channels tell it."""
    picture = pixels[..., :3].movedim(-1, 1)
    height, width = (max(1, side // vae.factor) for side in picture.shape[-2:])
    rgb, bias = _rgb(vae.latent)
    small = functional.interpolate(picture, size=(height, width), mode="area") * 2 - 1 - bias.reshape(1, 3, 1, 1)
    latents = torch.einsum("brhw,rc->bchw", small, torch.linalg.pinv(rgb))
    return ({"samples": latents / vae.latent.scale + vae.latent.shift},)


def _rgb(latent: LatentFormat) -> tuple[Tensor, Tensor]:
    """(c, 3) and (3,); the first three channels where the family names no matrix."""
    rows = latent.rgb or tuple(tuple(float(i == j) for j in range(3)) for i in range(latent.channels))
    return torch.tensor(rows), torch.tensor(latent.rgb_bias)
