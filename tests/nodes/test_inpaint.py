from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.families.base import Vae
from engine.nodes.inpaint import inpaint_model_conditioning, instruct_pix_to_pix_conditioning, vae_encode_for_inpaint
from engine.nodes.loaders import checkpoint_loader_simple
from engine.nodes.vae import vae_encode
from engine.workspace import Workspace
from tests.families.tiny import make_tiny_sd1
from tests.nodes.context import Context

ENTRY = [[torch.zeros(1, 77, 32), {"strength": 0.5}]]


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    workspace = Workspace(tmp_path).create()
    make_tiny_sd1(workspace.models / "checkpoints" / "tiny.safetensors", vae_levels=4)
    return Context(workspace)


@pytest.fixture
def vae(ctx: Context) -> Vae:
    return checkpoint_loader_simple(ctx, "tiny.safetensors")[2]


def square(size: int, low: int, high: int) -> Tensor:
    mask = torch.zeros(1, size, size)
    mask[:, low:high, low:high] = 1
    return mask


def samples(ctx: Context, vae: Vae, pixels: Tensor) -> Tensor:
    return vae_encode(ctx, pixels, vae)[0]["samples"]


def test_what_is_under_the_mask_becomes_grey_before_it_is_encoded(ctx: Context, vae: Vae):
    pixels, mask = torch.rand(1, 32, 32, 3), square(32, 8, 24)
    (latent,) = vae_encode_for_inpaint(ctx, pixels, vae, mask, 0)
    grey = torch.where(mask[..., None] > 0, torch.tensor(0.5), pixels)
    assert torch.equal(latent["samples"], samples(ctx, vae, grey))
    assert torch.equal(latent["noise_mask"], mask[:, None])


@pytest.mark.parametrize(("by", "low", "high"), [(1, 8, 24), (5, 6, 26), (6, 6, 27), (64, 0, 32)])
def test_the_noise_mask_is_grown_by_about_half_on_each_side(ctx: Context, vae: Vae, by: int, low: int, high: int):
    (latent,) = vae_encode_for_inpaint(ctx, torch.rand(1, 32, 32, 3), vae, square(32, 8, 24), by)
    assert torch.equal(latent["noise_mask"], square(32, low, high)[:, None])


def test_a_mask_of_another_size_is_laid_over_the_picture_and_both_are_cut_to_whole_cells(ctx: Context, vae: Vae):
    pixels, mask = torch.rand(2, 37, 44, 3), torch.ones(1, 10, 10)
    (latent,) = vae_encode_for_inpaint(ctx, pixels, vae, mask, 6)
    assert latent["samples"].shape == (2, 4, 4, 5) and latent["noise_mask"].shape == (1, 1, 32, 40)


def test_models_for_inpainting_are_shown_the_grey_picture_and_the_mask(ctx: Context, vae: Vae):
    pixels, mask = torch.rand(1, 32, 32, 3), square(32, 8, 24)
    positive, negative, latent = inpaint_model_conditioning(ctx, ENTRY, ENTRY, vae, pixels, mask, True)
    grey = torch.where(mask[..., None] > 0, torch.tensor(0.5), pixels)
    for ((_, options),) in (positive, negative):
        assert torch.equal(options["concat_latent_image"], samples(ctx, vae, grey))
        assert torch.equal(options["concat_mask"], mask[:, None]) and options["strength"] == 0.5
    assert torch.equal(latent["samples"], samples(ctx, vae, pixels))
    assert torch.equal(latent["noise_mask"], mask[:, None])
    assert "noise_mask" not in inpaint_model_conditioning(ctx, ENTRY, ENTRY, vae, pixels, mask, False)[2]
    assert ENTRY[0][1] == {"strength": 0.5}


def test_instruct_pix2pix_is_shown_the_picture_and_begins_with_nothing(ctx: Context, vae: Vae):
    pixels = torch.rand(1, 33, 32, 3)
    positive, negative, latent = instruct_pix_to_pix_conditioning(ctx, ENTRY, ENTRY, vae, pixels)
    assert torch.equal(positive[0][1]["concat_latent_image"], samples(ctx, vae, pixels))
    assert torch.equal(negative[0][1]["concat_latent_image"], samples(ctx, vae, pixels))
    assert torch.equal(latent["samples"], torch.zeros(1, 4, 4, 4))
