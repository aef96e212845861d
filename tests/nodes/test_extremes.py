"""Inputs at the ends of their ranges, and places outside of what they are a place in: numbers, or an error that says
what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engine.families.base import Components
from engine.nodes import compositing, latent, latent_batch, latent_math, mask, model_sampling, samplers, vae
from engine.nodes.conditioning import clip_text_encode
from engine.nodes.conditioning_where import conditioning_set_area, conditioning_set_area_percentage
from engine.nodes.custom_sampling import sampler_custom_advanced
from engine.nodes.guiders import perp_neg_guider
from engine.nodes.loaders import checkpoint_loader_simple
from engine.nodes.sampling import ksampler
from engine.nodes.unet_patches import patch_model_add_downscale
from engine.sampling.conditioning import AreaOutside
from engine.sampling.noise import Noise
from engine.sampling.samplers.table import SAMPLERS
from engine.workspace import Workspace
from tests.families.tiny import make_tiny_sd1
from tests.nodes.context import Context

EMPTY = {"samples": torch.zeros(1, 4, 8, 8)}


@pytest.fixture(scope="module")
def ctx(tmp_path_factory: pytest.TempPathFactory) -> Context:
    workspace = Workspace(tmp_path_factory.mktemp("studio")).create()
    make_tiny_sd1(workspace.models / "checkpoints" / "tiny.safetensors")
    return Context(workspace)


@pytest.fixture(scope="module")
def parts(ctx: Context) -> Components:
    model, clip, vae = checkpoint_loader_simple(ctx, "tiny.safetensors")
    return Components(model, clip, vae, "tiny", "digest")


def test_an_area_outside_of_the_picture_is_named(ctx: Context, parts: Components):
    (prompt,) = clip_text_encode(ctx, "a cat", parts.clip)

    def run(placed: list[Any]) -> None:
        ksampler(ctx, parts.model, 1, 1, 1.0, "euler", "normal", placed, prompt, EMPTY, 1.0)

    with pytest.raises(AreaOutside, match=r"begins 8 cells from the left and 0 from the top.*has 8 x 8"):
        run(conditioning_set_area(ctx, prompt, 64, 64, 64, 0, 1.0)[0])
    with pytest.raises(AreaOutside, match="0 cells from the left and 8 from the top"):
        run(conditioning_set_area_percentage(ctx, prompt, 1.0, 1.0, 0.0, 1.0, 1.0)[0])
    run(conditioning_set_area(ctx, prompt, 64, 64, 56, 56, 1.0)[0])


def test_perp_neg_of_a_prompt_that_says_what_the_empty_one_does(ctx: Context, parts: Components):
    positive, negative = (clip_text_encode(ctx, text, parts.clip)[0] for text in ("", "blue"))
    (guider,) = perp_neg_guider(ctx, parts.model, positive, negative, positive, 5.0, 1.0)
    sigmas = torch.tensor([10.0, 1.0, 0.0])
    out, _ = sampler_custom_advanced(ctx, Noise(1), guider, SAMPLERS["euler"], sigmas, EMPTY)
    assert bool(out["samples"].isfinite().all())


def test_a_version_without_a_source_is_refused(ctx: Context):
    assert samplers.sampler_euler_cfg_pp(ctx, "regular") == (SAMPLERS["euler_cfg_pp"],)
    with pytest.raises(samplers.NoSource, match="'alternative' is not there"):
        samplers.sampler_euler_cfg_pp(ctx, "alternative")


def test_a_small_picture_keeps_a_cell_however_far_it_is_scaled_down(ctx: Context, parts: Components):
    (prompt,) = clip_text_encode(ctx, "a cat", parts.clip)
    (model,) = patch_model_add_downscale(ctx, parts.model, 3, 9.0, 0.0, 1.0, True, "bicubic", "bicubic")
    (out,) = ksampler(ctx, model, 1, 1, 1.0, "euler", "normal", prompt, prompt, EMPTY, 1.0)
    assert out["samples"].shape == EMPTY["samples"].shape


def test_tones_that_are_all_mapped_away_leave_nothing(ctx: Context):
    (nothing,) = latent_math.latent_operation_tonemap_reinhard(ctx, 0.0)
    assert not nothing(torch.randn(1, 4, 8, 8)).any()


@pytest.mark.parametrize("node", [model_sampling.model_sampling_sd3, model_sampling.model_sampling_aura_flow])
def test_a_shift_that_leaves_no_noise_is_refused(ctx: Context, parts: Components, node: Any):
    with pytest.raises(model_sampling.NoShift, match="A shift of 0"):
        node(ctx, parts.model, 0.0)


def test_a_part_of_a_mask_that_is_not_there_is_refused(ctx: Context):
    whole = torch.rand(1, 16, 24)
    assert mask.crop_mask(ctx, whole, 23, 15, 512, 512)[0].shape == (1, 1, 1)
    with pytest.raises(mask.NothingLeft, match="24 x 16 has nothing at 24, 0"):
        mask.crop_mask(ctx, whole, 24, 0, 512, 512)


@pytest.mark.parametrize("work", [latent_math.latent_add, latent_math.latent_blend, latent_batch.latent_batch,
                                  compositing.latent_composite, compositing.latent_composite_masked])  # fmt: skip
def test_latents_of_two_models_do_not_meet(ctx: Context, work: Any):
    flux = {"samples": torch.rand(1, 16, 8, 8)}
    extra = {"latent_blend": (0.5,), "latent_composite": (0, 0, 0), "latent_composite_masked": (0, 0, False)}
    with pytest.raises(latent.LatentsDiffer, match="has 4 channels and the other 16"):
        work(ctx, EMPTY, flux, *extra.get(work.__name__, ()))


def test_what_cannot_stand_beside_each_other_is_named(ctx: Context, parts: Components):
    low = {"samples": torch.rand(1, 4, 7, 8)}
    assert latent_batch.latent_concat(ctx, EMPTY, low, "y")[0]["samples"].shape == (1, 4, 15, 8)
    with pytest.raises(latent_batch.SidesDiffer, match=r"\(1, 4, 8, 8\) and \(1, 4, 7, 8\).*along -x"):
        latent_batch.latent_concat(ctx, EMPTY, low, "-x")
    with pytest.raises(compositing.MasksDiffer, match="3 masks can't be laid over 2"):
        compositing.mask_composite(ctx, torch.rand(2, 8, 8), torch.rand(3, 8, 8), 0, 0, "add")
    with pytest.raises(vae.NoPicture, match=r"\(1, 4, 2, 8, 8\)"):
        vae.vae_decode(ctx, {"samples": torch.rand(1, 4, 2, 8, 8)}, parts.vae)
