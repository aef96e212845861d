"""Cheap pictures of latents on the way: one linear map of their channels to red, green and blue, a pixel a cell; or the
small stand-in for the VAE, where it is asked for and its files are there."""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor

from engine.families import approximate
from engine.families.base import LatentFormat, Model, Vae
from engine.models.manager import ModelManager, NoRoom
from engine.workspace import Workspace

Previewer = Callable[[Tensor], Image.Image | None]  # of the first of a batch, as the denoiser sees them

TINY_WORKING = 1024  # bytes a pixel: two layers of 64 channels in float32, and a copy


def previewer(models: ModelManager, workspace: Workspace, model: Model, method: str) -> Previewer:
    """By ComfyUI's names of methods. "taesd" without its files is a linear map, as is "auto"."""
    if method == "none":
        return lambda latent: None
    name = approximate.approximate_of(workspace, model.family.spec.name) if method == "taesd" else None
    if name is None:
        return lambda latent: latent_to_image(latent, model.latent)
    vae = approximate.load_approximate(models, workspace, name)
    return lambda latent: _decoded(models, vae, latent, model.latent)


def _decoded(models: ModelManager, vae: Vae, latent: Tensor, plain: LatentFormat) -> Image.Image | None:
    pixels = latent.shape[-1] * latent.shape[-2] * vae.factor**2
    try:
        with models.lease(vae.ref, working=pixels * TINY_WORKING) as leased, torch.no_grad():
            picture = vae.family.decode_latent(leased[vae.ref], vae, latent[:1].to(leased.device))[0]
    except NoRoom:
        return latent_to_image(latent, plain)
    levels = ((picture + 1) / 2).nan_to_num().clamp(0, 1).movedim(0, -1) * 255
    return Image.fromarray(levels.byte().cpu().numpy())


def latent_to_image(latent: Tensor, latent_format: LatentFormat) -> Image.Image | None:
    """The first picture of a batch of latents as the denoiser sees them. None when the format knows no colours."""
    if not latent_format.rgb:
        return None
    factors = torch.tensor(latent_format.rgb, dtype=torch.float32)  # (channels, 3)
    pixels = latent[0].detach().to("cpu", torch.float32).movedim(0, -1) @ factors + torch.tensor(latent_format.rgb_bias)
    pixels = ((pixels + 1) / 2).nan_to_num().clamp(0, 1) * 255
    return Image.fromarray(pixels.byte().numpy())
