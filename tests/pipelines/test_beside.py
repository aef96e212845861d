"""What acts beside Stable Diffusion 1.x - T2I adapters, perturbed attention, a small stand-in for the VAE - against
diffusers' pipelines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.adapter import T2IAdapter
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.pipelines.pag.pipeline_pag_sd import StableDiffusionPAGPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.t2i_adapter.pipeline_stable_diffusion_adapter import StableDiffusionAdapterPipeline
from safetensors.torch import save_file

from tests.pipelines.checkpoints import drawn
from tests.pipelines.running import CLOSE, Studio, apart
from tests.pipelines.sd1 import HEIGHT, PIPELINE, WIDTH, Picture, euler, latent_of, pure

SIZE = {"height": HEIGHT, "width": WIDTH}


@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_a_t2i_adapter(studio: Studio, parts: dict[str, Any], strength: float):
    adapter = T2IAdapter(channels=[8, 16, 16], num_res_blocks=2, downscale_factor=8, adapter_type="full_adapter").eval()
    adapter.load_state_dict(drawn(adapter.state_dict(), seed=3))
    save_file(adapter.state_dict(), studio.path("controlnet", "t2i.safetensors"))
    image, picture = studio.picture("hint.png", WIDTH, HEIGHT), Picture()
    control = picture.add("ControlNetLoader", control_net_name="t2i.safetensors")
    texts = {"positive": picture.text("a red cat"), "negative": picture.text("a dog")}
    window = {"strength": strength, "start_percent": 0.0, "end_percent": 1.0}
    hint = picture.add("LoadImage", image="hint.png")
    under = picture.graph.node("ControlNetApplyAdvanced", **texts, control_net=control, image=hint, **window)
    ours = picture.latent(studio, picture.sample(under.out(0), under.out(1), picture.empty()))
    pipe = StableDiffusionAdapterPipeline(scheduler=euler(), adapter=adapter, **parts, **PIPELINE)
    usual = {"image": image, "negative_prompt": "a dog", "latents": pure(euler())}
    theirs = latent_of(pipe, "a red cat", adapter_conditioning_scale=strength, **usual, **SIZE)
    plain = latent_of(pipe, "a red cat", adapter_conditioning_scale=0.0, **usual, **SIZE)
    assert apart(plain, theirs) > 100 * CLOSE
    assert apart(ours, theirs) <= CLOSE


@pytest.mark.parametrize("cfg", [5.0, 1.0])
def test_perturbed_attention(studio: Studio, parts: dict[str, Any], cfg: float):
    picture = Picture()
    picture.model = picture.add("PerturbedAttentionGuidance", model=picture.model, scale=2.5)
    ours = picture.latent(
        studio, picture.sample(picture.text("a red cat"), picture.text("a dog"), picture.empty(), cfg=cfg)
    )
    pipe = StableDiffusionPAGPipeline(scheduler=euler(), pag_applied_layers="mid", **parts, **PIPELINE)
    usual = {"negative_prompt": "a dog", "latents": pure(euler()), "guidance_scale": cfg, **SIZE}
    theirs = latent_of(pipe, "a red cat", pag_scale=2.5, **usual)
    assert apart(latent_of(pipe, "a red cat", pag_scale=0.0, **usual), theirs) > 50 * CLOSE
    assert apart(ours, theirs) <= CLOSE


def test_a_small_stand_in_decodes(studio: Studio, parts: dict[str, Any]):
    wide: Any = (8,) * 4
    tiny = AutoencoderTiny(encoder_block_out_channels=wide, decoder_block_out_channels=wide).eval()
    torch.manual_seed(0)
    for part, shift in (("encoder", 0), ("decoder", 1)):
        tensors = {}
        for key, tensor in tiny.get_submodule(part).state_dict().items():
            _, place, rest = key.split(".", 2)
            tensors[f"{int(place) + shift}.{rest}"] = tensor
        save_file(tensors, studio.workspace.models / "vae_approx" / f"taesd_{part}.safetensors")
    picture = Picture()
    sampled = picture.sample(picture.text("a red cat"), picture.text(""), picture.empty())
    vae = picture.add("VAELoader", vae_name="taesd")
    made = studio.image(picture.graph, picture.add("VAEDecode", samples=sampled, vae=vae))
    pipe = StableDiffusionPipeline(scheduler=euler(), **{**parts, "vae": tiny}, **PIPELINE)
    pipe.set_progress_bar_config(disable=True)
    (theirs,) = pipe("a red cat", latents=pure(euler()), num_inference_steps=4, guidance_scale=5.0, **SIZE).images
    assert np.abs(made - np.asarray(theirs).astype(int)).max() <= 2
    assert np.asarray(theirs).std() > 1
