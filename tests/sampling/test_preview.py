"""Cheap pictures of latents."""

from __future__ import annotations

import torch

from engine.families.base import LatentFormat
from engine.sampling.preview import latent_to_image

FORMAT = LatentFormat(channels=2, rgb=((1.0, 0.0, 0.0), (0.0, 0.5, 0.0)), rgb_bias=(0.0, 0.0, -1.0))


def test_a_pixel_is_a_linear_map_of_a_cell() -> None:
    latent = torch.tensor([1.0, -1.0]).reshape(1, 2, 1, 1).expand(1, 2, 3, 5)
    image = latent_to_image(latent, FORMAT)
    assert image is not None
    assert image.size == (5, 3)
    assert image.getpixel((0, 0)) == (255, 63, 0)


def test_broken_latents_still_give_a_picture() -> None:
    image = latent_to_image(torch.full((1, 2, 2, 2), float("nan")), FORMAT)
    assert image is not None
    assert image.getpixel((0, 0)) == (0, 0, 0)


def test_a_format_without_colours_has_no_preview() -> None:
    assert latent_to_image(torch.zeros(1, 4, 2, 2), LatentFormat()) is None
