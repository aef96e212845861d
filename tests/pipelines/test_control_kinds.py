"""More kinds of control against diffusers' pipelines: pixels, types, a model of its own, Stability's nets."""

from __future__ import annotations

import math
from typing import Any

import pytest
from diffusers.models.controlnets.controlnet_flux import FluxControlNetModel
from diffusers.models.controlnets.controlnet_sd3 import SD3ControlNetModel
from diffusers.pipelines.controlnet_sd3.pipeline_stable_diffusion_3_controlnet import StableDiffusion3ControlNetPipeline
from diffusers.pipelines.flux.pipeline_flux_control import FluxControlPipeline
from diffusers.pipelines.flux.pipeline_flux_controlnet import FluxControlNetPipeline

from tests.families.tiny_control_dit import stability_tensors, xlabs_tensors
from tests.families.tiny_dit import FLUX, SD35
from tests.pipelines.checkpoints import drawn
from tests.pipelines.dits import HEIGHT, WIDTH, flow, flux_latent, make_flux, make_sd3, write
from tests.pipelines.running import CLOSE, Studio, apart
from tests.pipelines.sd1 import Picture
from tests.pipelines.test_sd3 import theirs as sd3_latent

TEXT = "a red fox"
DEV = flow(shift=math.exp(1.15))


@pytest.fixture(scope="module")
def dev(studio: Studio) -> dict[str, Any]:
    return make_flux(studio, "dev.safetensors")


def sampled(studio: Studio, picture: Picture, node: Any, **inputs: Any) -> Any:
    latent = picture.add("EmptySD3LatentImage", width=WIDTH, height=HEIGHT, batch_size=1)
    return picture.latent(studio, picture.sample(node.out(0), node.out(1), latent, scheduler="simple", **inputs))


def under(picture: Picture, file: str, strength: float, kind: str = "") -> Any:
    control = picture.add("ControlNetLoader", control_net_name=file)
    if kind:
        control = picture.add("SetUnionControlNetType", control_net=control, type=kind)
    hint = picture.add("LoadImage", image="hint.png")
    inputs = {"positive": picture.text(TEXT), "negative": picture.text("a dog"), "control_net": control, "image": hint}
    window = {"strength": strength, "start_percent": 0.0, "end_percent": 1.0}
    return picture.graph.node("ControlNetApplyAdvanced", **inputs, vae=picture.vae, **window)


def flux_net(**changes: Any) -> FluxControlNetModel:
    config = {name: value for name, value in FLUX.items() if name != "out_channels"}
    net = FluxControlNetModel(**{**config, "num_layers": 1, **changes}).eval()
    net.load_state_dict(drawn(net.state_dict(), seed=6))
    return net


def test_xlabs_net_of_flux(studio: Studio, dev: dict[str, Any]):
    image = studio.picture("hint.png", WIDTH, HEIGHT)
    net = flux_net(num_single_layers=0, conditioning_embedding_channels=16, patch_size=2)
    write(xlabs_tensors(net), studio.path("controlnet", "xlabs.safetensors"))
    picture = Picture("dev.safetensors")
    made = sampled(studio, picture, under(picture, "xlabs.safetensors", 0.6), cfg=1.0)
    pipe = FluxControlNetPipeline(scheduler=DEV, controlnet=net, **dev)
    usual = {"control_image": image, "guidance_scale": 3.5}
    given = flux_latent(pipe, TEXT, controlnet_conditioning_scale=0.6, **usual)
    assert apart(flux_latent(pipe, TEXT, controlnet_conditioning_scale=0.0, **usual), given) > 100 * CLOSE
    assert apart(made, given) <= CLOSE


@pytest.mark.parametrize(("kind", "mode"), [("depth", 1), ("canny/lineart/anime_lineart/mlsd", 3)])
def test_a_union_for_flux(studio: Studio, dev: dict[str, Any], kind: str, mode: int):
    """Types are numbers, as in ComfyUI: what a number means is the net's."""
    image, net = studio.picture("hint.png", WIDTH, HEIGHT), flux_net(num_mode=5)
    write(net.state_dict(), studio.path("controlnet", "union.safetensors"))
    picture = Picture("dev.safetensors")
    made = sampled(studio, picture, under(picture, "union.safetensors", 0.7, kind), cfg=1.0)
    pipe = FluxControlNetPipeline(scheduler=DEV, controlnet=net, **dev)
    usual = {"control_image": image, "guidance_scale": 3.5, "controlnet_conditioning_scale": 0.7}
    assert apart(made, flux_latent(pipe, TEXT, control_mode=mode, **usual)) <= CLOSE
    assert apart(made, flux_latent(pipe, TEXT, control_mode=4 - mode, **usual)) > 10 * CLOSE


def test_a_flux_made_for_a_control_picture(studio: Studio):
    parts, image = make_flux(studio, "canny.safetensors", in_channels=128), studio.picture("hint.png", WIDTH, HEIGHT)
    picture = Picture("canny.safetensors")
    positive = picture.add("FluxGuidance", conditioning=picture.text(TEXT), guidance=30.0)
    inputs = {"vae": picture.vae, "pixels": picture.add("LoadImage", image="hint.png")}
    node = picture.graph.node("InstructPixToPixConditioning", positive=positive, negative=picture.text(""), **inputs)
    made = sampled(studio, picture, node, cfg=1.0)
    pipe = FluxControlPipeline(scheduler=DEV, **parts)
    assert apart(made, flux_latent(pipe, TEXT, control_image=image, guidance_scale=30.0)) <= CLOSE


def test_stabilitys_net_for_the_large_model(studio: Studio):
    """In its own names; diffusers' script for such files (convert_sd3_controlnet_to_diffusers) has the same pairs."""
    parts, image = make_sd3(studio, "sd3.safetensors"), studio.picture("hint.png", WIDTH, HEIGHT)
    config = {k: v for k, v in SD35.items() if k not in ("dual_attention_layers", "qk_norm")}
    config |= {"joint_attention_dim": None, "use_pos_embed": False, "force_zeros_for_pooled_projection": False}
    net = SD3ControlNetModel(**{**config, "num_layers": 1}).eval()
    net.load_state_dict(drawn(net.state_dict(), seed=6))
    write(stability_tensors(net), studio.path("controlnet", "sd3.5_large_controlnet_blur.safetensors"))
    picture = Picture("sd3.safetensors")
    made = sampled(studio, picture, under(picture, "sd3.5_large_controlnet_blur.safetensors", 0.6))
    pipe = StableDiffusion3ControlNetPipeline(scheduler=flow(shift=3.0), controlnet=net, **parts)
    usual = {"control_image": image, "negative_prompt": "a dog"}
    given = sd3_latent(pipe, TEXT, controlnet_conditioning_scale=0.6, **usual)
    assert apart(sd3_latent(pipe, TEXT, controlnet_conditioning_scale=0.0, **usual), given) > 100 * CLOSE
    assert apart(made, given) <= CLOSE
