"""A cheap picture of a latent: one linear map of its channels to red, green and blue, a pixel a cell."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from engine.families.base import LatentFormat


def latent_to_image(latent: Tensor, latent_format: LatentFormat) -> Image.Image | None:
    """The first picture of a batch of latents as the denoiser sees them. None when the format knows no colours."""
    if not latent_format.rgb:
        return None
    factors = torch.tensor(latent_format.rgb, dtype=torch.float32)  # (channels, 3)
    pixels = latent[0].detach().to("cpu", torch.float32).movedim(0, -1) @ factors + torch.tensor(latent_format.rgb_bias)
    pixels = ((pixels + 1) / 2).nan_to_num().clamp(0, 1) * 255
    return Image.fromarray(pixels.byte().numpy())
