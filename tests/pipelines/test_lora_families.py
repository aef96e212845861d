"""LoRAs of SDXL, Flux and SD3 against diffusers' load_lora_weights, in the names that trainers write."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from safetensors.torch import save_file
from torch import Tensor

from engine.weights import keymaps
from tests.families.tiny_unets import SDXL
from tests.pipelines import unets
from tests.pipelines.dits import HEIGHT, WIDTH, flow, flux_latent, make_flux, make_sd3
from tests.pipelines.running import CLOSE, Studio, apart
from tests.pipelines.sd1 import Picture, euler, latent_of, pure
from tests.pipelines.test_loras import pairs
from tests.pipelines.test_sd3 import theirs as sd3_latent

DIT = ("attn.to_q", "attn.to_v", "attn.to_out.0", "attn.add_k_proj", "attn.to_add_out", "ff.net.2", "ff_context.net.2")
UNET = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "proj_in")
STRENGTH = 0.7


def peft(path: Path, module: Any, prefix: str, names: tuple[str, ...]) -> None:
    tensors: dict[str, Tensor] = {}
    for name, (down, up) in pairs(module, *names).items():
        tensors |= {f"{prefix}.{name}.lora_A.weight": down, f"{prefix}.{name}.lora_B.weight": up}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def under(picture: Picture, path: Path) -> None:
    named = {"lora_name": path.name, "strength_model": STRENGTH}
    picture.model = picture.add("LoraLoaderModelOnly", model=picture.model, **named)


def put(pipe: Any, path: Path) -> None:
    pipe.load_lora_weights(path, adapter_name="one")
    pipe.set_adapters("one", STRENGTH)


def test_flux(studio: Studio):
    parts, path = make_flux(studio, "dev.safetensors"), studio.path("loras", "flux.safetensors")
    peft(path, parts["transformer"], "transformer", (*DIT, "proj_mlp", "proj_out", "norm1.linear", "x_embedder"))
    picture = Picture("dev.safetensors")
    under(picture, path)
    latent = picture.add("EmptySD3LatentImage", width=WIDTH, height=HEIGHT, batch_size=1)
    sampled = picture.sample(picture.text("a fox"), picture.text(""), latent, cfg=1.0, scheduler="simple")
    ours = picture.latent(studio, sampled)
    pipe = FluxPipeline(scheduler=flow(shift=math.exp(1.15)), **parts)
    plain = flux_latent(pipe, "a fox", guidance_scale=3.5)
    put(pipe, path)
    theirs = flux_latent(pipe, "a fox", guidance_scale=3.5)
    assert apart(plain, theirs) > 1000 * CLOSE
    assert apart(ours, theirs) <= CLOSE


def test_sd3(studio: Studio):
    parts, path = make_sd3(studio, "sd3.safetensors"), studio.path("loras", "sd3.safetensors")
    peft(path, parts["transformer"], "transformer", (*DIT, "attn2.to_q", "norm1.linear"))
    picture = Picture("sd3.safetensors")
    under(picture, path)
    latent = picture.add("EmptySD3LatentImage", width=WIDTH, height=HEIGHT, batch_size=1)
    sampled = picture.sample(picture.text("a fox"), picture.text("dogs"), latent, scheduler="simple")
    ours = picture.latent(studio, sampled)
    pipe = StableDiffusion3Pipeline(scheduler=flow(shift=3.0), **parts)
    plain = sd3_latent(pipe, "a fox", negative_prompt="dogs")
    put(pipe, path)
    theirs = sd3_latent(pipe, "a fox", negative_prompt="dogs")
    assert apart(plain, theirs) > 1000 * CLOSE
    assert apart(ours, theirs) <= CLOSE


def test_sdxl(studio: Studio):
    """kohya's, whose names are those of Stability's file; diffusers turns them into its own."""
    parts = unets.make_parts(studio, "xl.safetensors", SDXL)
    path, tensors = studio.path("loras", "xl.safetensors"), {}
    names = keymaps.unet_map(dict(parts["unet"].config))
    for name, (down, up) in pairs(
        parts["unet"], "to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "proj_in"
    ).items():
        key = f"lora_unet_{(names.to_ldm(name) or name).replace('.', '_')}"
        tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(2.0)}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    picture = Picture("xl.safetensors")
    under(picture, path)
    ours = picture.latent(studio, picture.sample(picture.text("a red cat"), picture.text("a dog"), picture.empty()))
    options: dict[str, Any] = {"force_zeros_for_empty_prompt": False, "add_watermarker": False}
    pipe = StableDiffusionXLPipeline(scheduler=euler(), **parts, **options)
    usual: dict[str, Any] = {"original_size": (96, 128), "target_size": (96, 128), "height": 48, "width": 64}
    usual |= {"negative_prompt": "a dog", "latents": pure(euler(), (1, 4, 12, 16))}
    plain = latent_of(pipe, "a red cat", **usual)
    put(pipe, path)
    theirs = latent_of(pipe, "a red cat", **usual)
    assert apart(plain, theirs) > 1000 * CLOSE
    assert apart(ours, theirs) <= CLOSE
