"""Flux.1 dev, schnell, Kontext and Fill against diffusers' pipelines."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from diffusers.pipelines.flux.pipeline_flux_fill import FluxFillPipeline
from diffusers.pipelines.flux.pipeline_flux_kontext import FluxKontextPipeline
from PIL import Image

from tests.pipelines.dits import HEIGHT, WIDTH, flow, flux_latent, make_flux
from tests.pipelines.running import CLOSE, Studio, apart
from tests.pipelines.sd1 import Picture

DEV = "dev.safetensors"
TEXT = "a red fox, 3 of them"


@pytest.fixture(scope="module")
def dev(studio: Studio) -> dict[str, Any]:
    return make_flux(studio, DEV)


def sampled(picture: Picture, positive: list[Any], **settings: Any) -> list[Any]:
    latent = picture.add("EmptySD3LatentImage", width=WIDTH, height=HEIGHT, batch_size=1)
    usual = {"cfg": 1.0, "scheduler": "simple"}
    return picture.sample(positive, picture.text(""), latent, **(usual | settings))


def test_dev_at_two_guidances(studio: Studio, dev: dict[str, Any]):
    pipe = FluxPipeline(scheduler=flow(shift=math.exp(1.15)), **dev)
    made = []
    for guidance in (3.5, 1.5):
        picture = Picture(DEV)
        positive = picture.add("FluxGuidance", conditioning=picture.text(TEXT), guidance=guidance)
        made.append(picture.latent(studio, sampled(picture, positive)))
        assert apart(made[-1], flux_latent(pipe, TEXT, guidance_scale=guidance)) <= CLOSE
    assert apart(*made) > 100 * CLOSE


def test_the_shift_follows_the_size(studio: Studio, dev: dict[str, Any]):
    picture = Picture(DEV)
    sizes = {"width": WIDTH, "height": HEIGHT, "max_shift": 1.15, "base_shift": 0.5}
    picture.model = picture.add("ModelSamplingFlux", model=picture.model, **sizes)
    made = picture.latent(studio, sampled(picture, picture.text(TEXT)))
    pipe = FluxPipeline(scheduler=flow(use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15), **dev)
    assert apart(made, flux_latent(pipe, TEXT, guidance_scale=3.5)) <= CLOSE


def test_a_text_for_each_encoder(studio: Studio, dev: dict[str, Any]):
    picture = Picture(DEV)
    positive = picture.add("CLIPTextEncodeFlux", clip=picture.clip, clip_l="a fox", t5xxl=TEXT, guidance=2.0)
    made = picture.latent(studio, sampled(picture, positive))
    pipe = FluxPipeline(scheduler=flow(shift=math.exp(1.15)), **dev)
    assert apart(made, flux_latent(pipe, "a fox", prompt_2=TEXT, guidance_scale=2.0)) <= CLOSE


def test_schnell(studio: Studio):
    """Without guidance and without a shift."""
    parts = make_flux(studio, "schnell.safetensors", guidance_embeds=False)
    picture = Picture("schnell.safetensors")
    made = picture.latent(studio, sampled(picture, picture.text(TEXT)))
    assert apart(made, flux_latent(FluxPipeline(scheduler=flow(shift=1.0), **parts), TEXT)) <= CLOSE


def test_kontext_sees_a_picture(studio: Studio, dev: dict[str, Any]):
    image, picture = studio.picture("reference.png", 96, 64), Picture(DEV)
    seen = picture.add("VAEEncode", pixels=picture.add("LoadImage", image="reference.png"), vae=picture.vae)
    positive = picture.add("ReferenceLatent", conditioning=picture.text(TEXT), latent=seen)
    positive = picture.add("FluxGuidance", conditioning=positive, guidance=2.5)
    made = picture.latent(studio, sampled(picture, positive))
    pipe = FluxKontextPipeline(scheduler=flow(shift=math.exp(1.15)), **dev)
    theirs = flux_latent(pipe, TEXT, image=image, guidance_scale=2.5, _auto_resize=False,
                         max_area=WIDTH * HEIGHT)  # fmt: skip
    assert apart(made, theirs) <= CLOSE


def test_fill_sees_a_picture_and_its_mask(studio: Studio):
    """A mask that cuts through cells."""
    parts, picture = make_flux(studio, "fill.safetensors", in_channels=384), Picture("fill.safetensors")
    image, mask = studio.picture("start.png", WIDTH, HEIGHT), np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[13:60, 37:101] = 255
    shown = image.copy()
    shown.putalpha(Image.fromarray(255 - mask))
    shown.save(studio.workspace.input / "masked.png")
    loaded = picture.graph.node("LoadImage", image="masked.png")
    positive = picture.add("FluxGuidance", conditioning=picture.text(TEXT), guidance=30.0)
    inputs = {"vae": picture.vae, "pixels": loaded.out(0), "mask": loaded.out(1), "noise_mask": False}
    node = picture.graph.node("InpaintModelConditioning", positive=positive, negative=picture.text(""), **inputs)
    made = picture.latent(studio, sampled(picture, node.out(0)))
    pipe = FluxFillPipeline(scheduler=flow(shift=math.exp(1.15)), **parts)
    theirs = flux_latent(pipe, TEXT, image=image, mask_image=Image.fromarray(mask), guidance_scale=30.0)
    assert apart(made, theirs) <= CLOSE
