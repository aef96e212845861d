"""SDXL and its refiner against diffusers' pipelines: two texts, sizes and crops, a run that both share."""

from __future__ import annotations

from typing import Any

import pytest
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_img2img import (
    StableDiffusionXLImg2ImgPipeline,
)

from tests.families.tiny_unets import REFINER, SDXL
from tests.pipelines.running import CLOSE, SEED, Studio, apart
from tests.pipelines.sd1 import Picture, euler, latent_of, pure
from tests.pipelines.unets import make_parts

BASE, REFINE = "base.safetensors", "refiner.safetensors"
SHAPE = (1, 4, 12, 16)
PIXELS = {"height": 48, "width": 64}  # of the tiny VAE, 4 a cell
OPTIONS: dict[str, Any] = {"force_zeros_for_empty_prompt": False, "add_watermarker": False}


@pytest.fixture(scope="module")
def parts(studio: Studio) -> dict[str, Any]:
    return make_parts(studio, BASE, SDXL)


@pytest.fixture(scope="module")
def refiner(studio: Studio) -> dict[str, Any]:
    return {"text_encoder": None, "tokenizer": None, **make_parts(studio, REFINE, REFINER)}


def sized(picture: Picture, text_l: str, text_g: str, **sizes: int) -> list[Any]:
    return picture.add("CLIPTextEncodeSDXL", clip=picture.clip, text_l=text_l, text_g=text_g, **sizes)


def test_the_latents_size_is_told(studio: Studio, parts: dict[str, Any]):
    picture = Picture(BASE)
    sampled = picture.sample(picture.text("a red cat"), picture.text("a dog"), picture.empty())
    pipe = StableDiffusionXLPipeline(scheduler=euler(), **parts, **OPTIONS)
    sizes = {"original_size": (96, 128), "target_size": (96, 128)}
    theirs = latent_of(pipe, "a red cat", negative_prompt="a dog", latents=pure(euler(), SHAPE), **sizes, **PIXELS)
    assert apart(picture.latent(studio, sampled), theirs) <= CLOSE


def test_texts_sizes_and_crops_of_its_own(studio: Studio, parts: dict[str, Any]):
    picture = Picture(BASE)
    first = {"width": 1024, "height": 768, "crop_w": 64, "crop_h": 32, "target_width": 896, "target_height": 640}
    second = {"width": 256, "height": 320, "crop_w": 8, "crop_h": 16, "target_width": 512, "target_height": 384}
    positive = sized(picture, "a red cat", "a photo of a cat", **first)
    negative = sized(picture, "a blue dog", "a dog", **second)
    made = picture.latent(studio, picture.sample(positive, negative, picture.empty()))
    pipe = StableDiffusionXLPipeline(scheduler=euler(), **parts, **OPTIONS)
    theirs = latent_of(
        pipe, "a red cat", prompt_2="a photo of a cat", negative_prompt="a blue dog", negative_prompt_2="a dog",
        original_size=(768, 1024), crops_coords_top_left=(32, 64), target_size=(640, 896),
        negative_original_size=(320, 256), negative_crops_coords_top_left=(16, 8), negative_target_size=(384, 512),
        latents=pure(euler(), SHAPE), **PIXELS,
    )  # fmt: skip
    assert apart(made, theirs) <= CLOSE


def test_the_refiner_goes_on_where_the_base_stopped(studio: Studio, parts: dict[str, Any], refiner: dict[str, Any]):
    """Half of four steps each. The scores are told by CLIPTextEncodeSDXLRefiner."""
    picture = Picture(BASE)
    loader = picture.graph.node("CheckpointLoaderSimple", ckpt_name=REFINE)
    half: dict[str, Any] = {"noise_seed": SEED, "steps": 4, "cfg": 5.0, "sampler_name": "euler", "scheduler": "normal"}
    base = picture.add(
        "KSamplerAdvanced", model=picture.model, positive=picture.text("a red cat"), negative=picture.text("a dog"),
        latent_image=picture.empty(), add_noise="enable", start_at_step=0, end_at_step=2,
        return_with_leftover_noise="enable", **half,
    )  # fmt: skip
    told = {"clip": loader.out(1), "width": 64, "height": 48}
    positive = picture.add("CLIPTextEncodeSDXLRefiner", text="a red cat", ascore=6.0, **told)
    negative = picture.add("CLIPTextEncodeSDXLRefiner", text="a dog", ascore=2.5, **told)
    more = picture.add(
        "KSamplerAdvanced", model=loader.out(0), positive=positive, negative=negative, latent_image=base,
        add_noise="disable", start_at_step=2, end_at_step=4, return_with_leftover_noise="disable", **half,
    )  # fmt: skip
    made = picture.latent(studio, more)
    first = StableDiffusionXLPipeline(scheduler=euler(), **parts, **OPTIONS)
    sizes = {"original_size": (96, 128), "target_size": (96, 128)}
    begun = latent_of(first, "a red cat", negative_prompt="a dog", latents=pure(euler(), SHAPE), denoising_end=0.5,
                      **sizes, **PIXELS) * SDXL.scale  # fmt: skip
    second = StableDiffusionXLImg2ImgPipeline(scheduler=euler(), requires_aesthetics_score=True, **refiner, **OPTIONS)
    theirs = latent_of(second, "a red cat", negative_prompt="a dog", image=begun, denoising_start=0.5)
    assert apart(made, theirs) <= CLOSE
