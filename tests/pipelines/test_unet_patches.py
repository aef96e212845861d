"""Patches of UNets, and a VAE's tiles, against diffusers' pipelines and its FreeU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.unets import unet_2d_blocks
from diffusers.pipelines.deprecated.stable_diffusion_sag.pipeline_stable_diffusion_sag import StableDiffusionSAGPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.utils import torch_utils
from torch import Tensor

from tests.families.tiny import UNET
from tests.pipelines.running import CLOSE, Studio, apart, noise
from tests.pipelines.sd1 import BETAS, HEIGHT, PIPELINE, SHAPE, WIDTH, Picture, euler, latent_of, pure

SIZE = {"height": HEIGHT, "width": WIDTH}


def test_freeu(studio: Studio, parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    """diffusers takes the first two levels on the way up; ours, as the paper, those of four and of two times the first
    width: here 32, which this UNet does not have, and 16."""
    by_width = {4 * UNET["block_out_channels"][0]: 0, 2 * UNET["block_out_channels"][0]: 1}

    def apply(level: int, hidden: Tensor, skip: Tensor, **factors: float) -> tuple[Tensor, Tensor]:
        return torch_utils.apply_freeu(by_width.get(hidden.shape[1], 2), hidden, skip, **factors)

    picture = Picture()
    picture.model = picture.add("FreeU", model=picture.model, b1=1.3, b2=1.4, s1=0.9, s2=0.2)
    sampled = picture.sample(picture.text("a red cat"), picture.text("a dog"), picture.empty())
    plain = Picture()
    without = plain.sample(plain.text("a red cat"), plain.text("a dog"), plain.empty())
    pipe = StableDiffusionPipeline(scheduler=euler(), **parts, **PIPELINE)
    monkeypatch.setattr(unet_2d_blocks, "apply_freeu", apply)
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.3, b2=1.4)
    try:
        theirs = latent_of(pipe, "a red cat", negative_prompt="a dog", latents=pure(euler()), **SIZE)
    finally:
        pipe.disable_freeu()
    assert apart(picture.latent(studio, sampled), theirs) <= CLOSE
    assert apart(plain.latent(studio, without), theirs) > 0.05


@pytest.mark.parametrize("scale", [0.75, 2.0])
def test_self_attention_guidance(studio: Studio, parts: dict[str, Any], scale: float):
    """diffusers blurs with a sigma of 1, and takes schedulers of whole timesteps: DPM-Solver of the first order, which
    is Euler's method in sigma."""
    picture = Picture()
    picture.model = picture.add("SelfAttentionGuidance", model=picture.model, scale=scale, blur_sigma=1.0)
    texts = picture.text("a red cat"), picture.text("a dog")
    sampled = picture.sample(*texts, picture.empty(), steps=3, scheduler="sgm_uniform")
    plain = Picture()
    texts = plain.text("a red cat"), plain.text("a dog")
    without = plain.sample(*texts, plain.empty(), steps=3, scheduler="sgm_uniform")
    scheduler = DPMSolverMultistepScheduler(
        **{**BETAS, "steps_offset": 0}, solver_order=1, timestep_spacing="linspace", final_sigmas_type="zero"
    )
    pipe = StableDiffusionSAGPipeline(scheduler=scheduler, **parts, **PIPELINE)
    theirs = latent_of(pipe, "a red cat", negative_prompt="a dog", latents=noise(*SHAPE), sag_scale=scale,
                       num_inference_steps=3, **SIZE)  # fmt: skip
    assert apart(picture.latent(studio, sampled), theirs) <= CLOSE
    assert apart(plain.latent(studio, without), theirs) > 0.001


def test_what_fits_into_a_tile_is_decoded_and_encoded_as_a_whole(studio: Studio, parts: dict[str, Any]):
    """Beyond one tile there is nothing to compare: diffusers fades two neighbours into each other along one cut, ours
    is the mean of three cuts, as in ComfyUI (tests/parity has what that gives)."""
    studio.picture("tiles.png", WIDTH, HEIGHT)
    picture, tiles = Picture(), {"tile_size": 512, "overlap": 64, "temporal_size": 64, "temporal_overlap": 8}
    loaded = picture.add("LoadImage", image="tiles.png")
    encoded = picture.add("VAEEncodeTiled", pixels=loaded, vae=picture.vae, **tiles)
    decoded = picture.add("VAEDecodeTiled", samples=encoded, vae=picture.vae, **tiles)
    again = picture.add("VAEEncode", pixels=decoded, vae=picture.vae)
    vae = parts["vae"]
    image = torch.from_numpy(studio.image(picture.graph, loaded)).float().movedim(-1, 0)[None] / 255 * 2 - 1
    with torch.no_grad():
        latent = vae.encode(image).latent_dist.mode()
        twice = vae.encode(vae.decode(latent).sample.clamp(-1, 1)).latent_dist.mode()
    assert apart(picture.latent(studio, encoded), latent) <= CLOSE
    assert apart(picture.latent(studio, again), twice) <= CLOSE
