"""Stable Diffusion 3.5 against diffusers' pipeline: with T5 and without, two shifts, guidance by skipped layers."""

from __future__ import annotations

from typing import Any

import pytest
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from torch import Tensor

from tests.pipelines.dits import HEIGHT, SHAPE, WIDTH, flow, make_sd3
from tests.pipelines.running import CLOSE, Studio, apart, noise
from tests.pipelines.sd1 import Picture

FILE = "sd3.safetensors"
SIGMAS = [1.0, 0.75, 0.5, 0.25]  # as the scheduler "simple" has them; diffusers' own end at the last that was trained
TEXT, NEGATIVE = "a red fox", "blurry, 3 dogs"


@pytest.fixture(scope="module")
def parts(studio: Studio) -> dict[str, Any]:
    return make_sd3(studio, FILE)


def ours(studio: Studio, picture: Picture, positive: list[Any], negative: list[Any]) -> Tensor:
    latent = picture.add("EmptySD3LatentImage", width=WIDTH, height=HEIGHT, batch_size=1)
    return picture.latent(studio, picture.sample(positive, negative, latent, scheduler="simple"))


def theirs(pipe: Any, prompt: Any, **settings: Any) -> Tensor:
    pipe.set_progress_bar_config(disable=True)
    usual = {
        "height": HEIGHT,
        "width": WIDTH,
        "max_sequence_length": 77,
        "output_type": "latent",
        "guidance_scale": 5.0,
        "sigmas": SIGMAS,
    }
    latent = pipe(prompt, num_inference_steps=4, latents=noise(*SHAPE), **(usual | settings)).images
    return latent / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor


@pytest.mark.parametrize("shift", [3.0, 5.0])
def test_three_encoders(studio: Studio, parts: dict[str, Any], shift: float):
    picture = Picture(FILE)
    if shift != 3.0:
        picture.model = picture.add("ModelSamplingSD3", model=picture.model, shift=shift)
    made = ours(studio, picture, picture.text(TEXT), picture.text(NEGATIVE))
    pipe = StableDiffusion3Pipeline(scheduler=flow(shift=shift), **parts)
    given = theirs(pipe, TEXT, negative_prompt=NEGATIVE)
    assert apart(made, given) <= CLOSE


def test_a_text_for_each_encoder(studio: Studio, parts: dict[str, Any]):
    picture = Picture(FILE)
    texts = {"clip_l": "a fox", "clip_g": "a red cat", "t5xxl": TEXT, "empty_padding": "none"}
    positive = picture.add("CLIPTextEncodeSD3", clip=picture.clip, **texts)
    made = ours(studio, picture, positive, picture.text(NEGATIVE))
    pipe = StableDiffusion3Pipeline(scheduler=flow(shift=3.0), **parts)
    given = theirs(pipe, "a fox", prompt_2="a red cat", prompt_3=TEXT, negative_prompt=NEGATIVE)  # fmt: skip
    assert apart(made, given) <= CLOSE


def test_without_t5(studio: Studio):
    """diffusers puts zeros in place of T5's states, which the model attends to; we leave them out, as ComfyUI does."""
    parts = make_sd3(studio, "no_t5.safetensors", with_t5=False)
    picture = Picture("no_t5.safetensors")
    made = ours(studio, picture, picture.text(TEXT), picture.text(NEGATIVE))
    pipe = StableDiffusion3Pipeline(scheduler=flow(shift=3.0), **parts)
    positive, negative, pooled, negative_pooled = pipe.encode_prompt(
        TEXT, None, None, negative_prompt=NEGATIVE, do_classifier_free_guidance=True, device="cpu"
    )
    given = theirs(pipe, None, prompt_embeds=positive[:, :77], negative_prompt_embeds=negative[:, :77],
                   pooled_prompt_embeds=pooled, negative_pooled_prompt_embeds=negative_pooled)  # fmt: skip
    assert apart(made, given) <= CLOSE


def test_guidance_by_a_skipped_layer(studio: Studio, parts: dict[str, Any]):
    """In the second of four steps: diffusers counts steps, we timesteps as ComfyUI."""
    picture = Picture(FILE)
    skip = {"layers": "0", "scale": 2.8, "start_percent": 0.01, "end_percent": 0.4}
    picture.model = picture.add("SkipLayerGuidanceSD3", model=picture.model, **skip)
    made = ours(studio, picture, picture.text(TEXT), picture.text(NEGATIVE))
    pipe = StableDiffusion3Pipeline(scheduler=flow(shift=3.0), **parts)
    usual = {"negative_prompt": NEGATIVE}
    given = theirs(pipe, TEXT, skip_guidance_layers=[0], skip_layer_guidance_scale=2.8,
                   skip_layer_guidance_start=0.01, skip_layer_guidance_stop=0.5, **usual)  # fmt: skip
    assert apart(made, given) <= CLOSE
    assert apart(theirs(pipe, TEXT, **usual), given) > 100 * CLOSE
