"""Stable Diffusion 1.x: prompts, pictures to start from and inpainting against diffusers' pipelines, given the same
file, prompts and noise."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img import StableDiffusionImg2ImgPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint import StableDiffusionInpaintPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_instruct_pix2pix import (
    StableDiffusionInstructPix2PixPipeline,
)
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.weights.header import read_header
from tests.families.tiny import UNET
from tests.pipelines.checkpoints import tokenizer, unet_of
from tests.pipelines.running import CLOSE, SEED, Studio, apart
from tests.pipelines.sd1 import FILE, HEIGHT, PIPELINE, SCALE, SHAPE, WIDTH, Picture, euler, latent_of, pure

SIZE = {"height": HEIGHT, "width": WIDTH}


def text_pipe(parts: dict[str, Any]) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(scheduler=euler(), **parts, **PIPELINE)


@pytest.mark.parametrize("layer", [-1, -2, -3])
def test_clip_skip(studio: Studio, parts: dict[str, Any], layer: int):
    picture = Picture()
    picture.clip = picture.add("CLIPSetLastLayer", clip=picture.clip, stop_at_clip_layer=layer)
    sampled = picture.sample(picture.text("a red cat"), picture.text("a dog"), picture.empty())
    pipe = text_pipe(parts)  # leaves the negative prompt as it is when it skips layers
    (prompt, _), (negative, _) = (
        pipe.encode_prompt(text, "cpu", 1, False, clip_skip=-1 - layer) for text in ("a red cat", "a dog")
    )
    theirs = latent_of(pipe, None, prompt_embeds=prompt, negative_prompt_embeds=negative, latents=pure(euler()), **SIZE)
    assert apart(picture.latent(studio, sampled), theirs) <= CLOSE


def test_a_batch(studio: Studio, parts: dict[str, Any]):
    picture = Picture()
    sampled = picture.sample(picture.text("a red cat"), picture.text(""), picture.empty(batch=2))
    theirs = latent_of(text_pipe(parts), ["a red cat"] * 2, latents=pure(euler(), (2, *SHAPE[1:])), **SIZE)
    assert apart(picture.latent(studio, sampled), theirs) <= CLOSE


def test_without_guidance(studio: Studio, parts: dict[str, Any]):
    picture = Picture()
    sampled = picture.sample(picture.text("a red cat"), picture.text("a dog"), picture.empty(), cfg=1.0)
    theirs = latent_of(text_pipe(parts), "a red cat", latents=pure(euler()), guidance_scale=1.0, **SIZE)
    assert apart(picture.latent(studio, sampled), theirs) <= CLOSE


def test_the_decoded_picture(studio: Studio, parts: dict[str, Any]):
    picture = Picture()
    sampled = picture.sample(picture.text("a red cat"), picture.text(""), picture.empty())
    made = studio.image(picture.graph, picture.add("VAEDecode", samples=sampled, vae=picture.vae))
    pipe = text_pipe(parts)
    pipe.set_progress_bar_config(disable=True)
    (theirs,) = pipe("a red cat", latents=pure(euler()), num_inference_steps=4, guidance_scale=5.0, **SIZE).images
    assert np.abs(made - np.asarray(theirs).astype(int)).max() <= 2
    assert np.asarray(theirs).std() > 20


def test_textual_inversion(studio: Studio, parts: dict[str, Any]):
    """Two vectors for one word, between others."""
    vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
    save_file({"emb_params": vectors}, studio.path("embeddings", "thing.safetensors"))
    picture = Picture()
    sampled = picture.sample(picture.text("a embedding:thing cat"), picture.text(""), picture.empty())
    pipe = text_pipe(
        {
            **parts,
            "tokenizer": tokenizer(studio.workspace.root / "other"),
            "text_encoder": deepcopy(parts["text_encoder"]),
        }
    )
    pipe.load_textual_inversion(studio.path("embeddings", "thing.safetensors"), token="<thing>")
    theirs = latent_of(pipe, "a <thing> cat", latents=pure(euler()), **SIZE)
    assert apart(picture.latent(studio, sampled), theirs) <= CLOSE


def image_latent(parts: dict[str, Any], image: Image.Image) -> Tensor:
    """In the UNet's scale, the mean of the distribution."""
    pixels = torch.from_numpy(np.asarray(image).astype(np.float32) / 255).movedim(-1, 0)[None] * 2 - 1
    with torch.no_grad():
        return parts["vae"].encode(pixels).latent_dist.mode() * SCALE


def test_image_to_image(studio: Studio, parts: dict[str, Any]):
    """denoise 0.5 of 5 steps is strength 0.5 of 10."""
    image, picture = studio.picture("start.png", WIDTH, HEIGHT), Picture()
    start = picture.add("VAEEncode", pixels=picture.add("LoadImage", image="start.png"), vae=picture.vae)
    sampled = picture.sample(picture.text("a red cat"), picture.text("a dog"), start, steps=5, denoise=0.5)
    pipe = StableDiffusionImg2ImgPipeline(scheduler=euler(), **parts, **PIPELINE)
    theirs = latent_of(pipe, "a red cat", negative_prompt="a dog", image=image_latent(parts, image), strength=0.5,
                       num_inference_steps=10, generator=torch.Generator().manual_seed(SEED))  # fmt: skip
    assert apart(picture.latent(studio, sampled), theirs) <= CLOSE


def masked(studio: Studio) -> Image.Image:
    """A mask of whole cells, in the file's alpha as the editor paints it; returned white where it is made anew."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[16:64, 40:104] = 255
    rgb = Image.open(studio.workspace.input / "start.png").convert("RGB")
    rgb.putalpha(Image.fromarray(255 - mask))
    rgb.save(studio.workspace.input / "masked.png")
    return Image.fromarray(mask)


def test_inpainting_with_an_ordinary_model(studio: Studio, parts: dict[str, Any]):
    image = studio.picture("start.png", WIDTH, HEIGHT)
    mask, picture = masked(studio), Picture()
    loaded = picture.graph.node("LoadImage", image="masked.png")
    encoded = picture.add("VAEEncode", pixels=loaded.out(0), vae=picture.vae)
    start = picture.add("SetLatentNoiseMask", samples=encoded, mask=loaded.out(1))
    sampled = picture.sample(picture.text("a red cat"), picture.text("a dog"), start, steps=5, denoise=0.5)
    pipe = StableDiffusionInpaintPipeline(scheduler=euler(), **parts, **PIPELINE)
    given = image_latent(parts, image)
    theirs = latent_of(pipe, "a red cat", negative_prompt="a dog", image=given, mask_image=mask,
                       masked_image_latents=given, strength=0.5, num_inference_steps=10,
                       generator=torch.Generator().manual_seed(SEED), **SIZE)  # fmt: skip
    assert apart(picture.latent(studio, sampled), theirs) <= CLOSE


def wider(studio: Studio, parts: dict[str, Any], channels: int) -> dict[str, Any]:
    """The parts with a UNet of that many channels, its checkpoint saved as "wide.safetensors"."""
    tensors = load_file(studio.path("checkpoints", FILE))
    name = "model.diffusion_model.input_blocks.0.0.weight"
    shape = (tensors[name].shape[0], channels, 3, 3)
    tensors[name] = torch.randn(shape, generator=torch.Generator().manual_seed(2)) / (9 * channels) ** 0.5
    path = studio.path("checkpoints", "wide.safetensors")
    save_file(tensors, path, dict(read_header(studio.path("checkpoints", FILE)).metadata))
    return {**parts, "unet": unet_of(path, {**UNET, "in_channels": channels})}


def test_inpainting_with_a_model_made_for_it(studio: Studio, parts: dict[str, Any]):
    image = studio.picture("start.png", WIDTH, HEIGHT)
    mask, wide, picture = masked(studio), wider(studio, parts, 9), Picture("wide.safetensors")
    loaded = picture.graph.node("LoadImage", image="masked.png")
    texts = {"positive": picture.text("a red cat"), "negative": picture.text("a dog")}
    inputs = {"vae": picture.vae, "pixels": loaded.out(0), "mask": loaded.out(1), "noise_mask": False}
    shown = picture.graph.node("InpaintModelConditioning", **texts, **inputs)
    sampled = picture.sample(shown.out(0), shown.out(1), shown.out(2), steps=5, denoise=0.5)
    pipe = StableDiffusionInpaintPipeline(scheduler=euler(), **wide, **PIPELINE)
    grey = np.where(np.asarray(mask)[..., None] > 127, 127.5, np.asarray(image).astype(np.float32))
    without = image_latent(parts, grey)
    theirs = latent_of(pipe, "a red cat", negative_prompt="a dog", image=image_latent(parts, image), mask_image=mask,
                       masked_image_latents=without, strength=0.5, num_inference_steps=10,
                       generator=torch.Generator().manual_seed(SEED), **SIZE)  # fmt: skip
    assert apart(picture.latent(studio, sampled), theirs) <= CLOSE


def test_instruct_pix2pix(studio: Studio, parts: dict[str, Any]):
    """Three ways of asking: prompt and picture, picture alone, neither."""
    image, wide, picture = (
        studio.picture("start.png", WIDTH, HEIGHT),
        wider(studio, parts, 8),
        Picture("wide.safetensors"),
    )
    loaded = picture.add("LoadImage", image="start.png")
    negative = picture.text("a dog")
    shown = picture.graph.node("InstructPixToPixConditioning", positive=picture.text("a red cat"), negative=negative,
                               vae=picture.vae, pixels=loaded)  # fmt: skip
    guider = picture.add("DualCFGGuider", model=picture.model, cond1=shown.out(0), cond2=shown.out(1),
                         negative=negative, cfg_conds=5.0, cfg_cond2_negative=1.5, style="regular")  # fmt: skip
    sampled = picture.add(
        "SamplerCustomAdvanced",
        noise=picture.add("RandomNoise", noise_seed=SEED),
        guider=guider,
        sampler=picture.add("KSamplerSelect", sampler_name="euler"),
        sigmas=picture.add("BasicScheduler", model=picture.model, scheduler="normal", steps=4, denoise=1.0),
        latent_image=shown.out(2),
    )
    pipe = StableDiffusionInstructPix2PixPipeline(scheduler=euler(), **wide, **PIPELINE)
    theirs = latent_of(pipe, "a red cat", negative_prompt="a dog", image=image, image_guidance_scale=1.5,
                       latents=pure(euler()))  # fmt: skip
    assert apart(picture.latent(studio, sampled), theirs) <= CLOSE
