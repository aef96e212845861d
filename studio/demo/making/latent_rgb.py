"""A cheap picture of a latent: the linear map from the autoencoder's latents to RGB, fitted on drawn pictures."""

from __future__ import annotations

import random

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from PIL import Image

from studio.demo.drawing import render
from studio.demo.spec import sample_seen


@torch.no_grad()
def fit_latent_rgb(vae: AutoencoderKL, size: int, count: int = 96) -> list[list[float]]:
    """Rows of red, green, blue in -1..1: one for each latent channel, and one for the bias. Least squares."""
    rng = random.Random(11)
    pictures = [render(sample_seen(rng), size) for _ in range(count)]
    pixels = torch.from_numpy(np.stack([np.asarray(p, np.float32) for p in pictures])).permute(0, 3, 1, 2) / 127.5 - 1
    latents = vae.encode(pixels).latent_dist.mean * vae.config["scaling_factor"]  # type: ignore[union-attr]
    side = latents.shape[-1]
    small = [np.asarray(p.resize((side, side), Image.Resampling.BOX), np.float32) / 127.5 - 1 for p in pictures]
    cells = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1]).numpy()
    with_bias = np.concatenate([cells, np.ones((len(cells), 1), np.float32)], axis=1)
    rows = np.linalg.lstsq(with_bias, np.stack(small).reshape(-1, 3), rcond=None)[0]
    return [[round(float(value), 4) for value in row] for row in rows]
