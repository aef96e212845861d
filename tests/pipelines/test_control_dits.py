"""ControlNets of Flux and SD3 against diffusers' pipelines."""

from __future__ import annotations

import math
from typing import Any

from diffusers.models.controlnets.controlnet_flux import FluxControlNetModel
from diffusers.models.controlnets.controlnet_sd3 import SD3ControlNetModel
from diffusers.pipelines.controlnet_sd3.pipeline_stable_diffusion_3_controlnet import StableDiffusion3ControlNetPipeline
from diffusers.pipelines.flux.pipeline_flux_controlnet import FluxControlNetPipeline

from tests.families.tiny_dit import FLUX, SD3_TEXT, SD35
from tests.pipelines.checkpoints import drawn
from tests.pipelines.dits import HEIGHT, WIDTH, flow, flux_latent, make_flux, make_sd3, write
from tests.pipelines.running import CLOSE, Studio, apart
from tests.pipelines.sd1 import Picture
from tests.pipelines.test_sd3 import theirs as sd3_latent

TEXT = "a red fox"


def under(studio: Studio, picture: Picture, file: str, strength: float, end: float, **inputs: Any) -> Any:
    """The latent of a run under that net."""
    hint = picture.add("LoadImage", image="hint.png")
    control = picture.add("ControlNetLoader", control_net_name=file)
    texts = {"positive": picture.text(TEXT), "negative": picture.text("a dog")}
    window = {"strength": strength, "start_percent": 0.0, "end_percent": end}
    node = picture.graph.node(
        "ControlNetApplyAdvanced", **texts, control_net=control, image=hint, vae=picture.vae, **window
    )
    latent = picture.add("EmptySD3LatentImage", width=WIDTH, height=HEIGHT, batch_size=1)
    return picture.latent(studio, picture.sample(node.out(0), node.out(1), latent, scheduler="simple", **inputs))


def test_flux(studio: Studio):
    """In the first two of four steps: diffusers counts steps, we timesteps as ComfyUI."""
    parts, image = make_flux(studio, "dev.safetensors"), studio.picture("hint.png", WIDTH, HEIGHT)
    config = {name: value for name, value in FLUX.items() if name != "out_channels"}
    net = FluxControlNetModel(**{**config, "num_layers": 1}).eval()
    net.load_state_dict(drawn(net.state_dict(), seed=6))
    write(net.state_dict(), studio.path("controlnet", "flux.safetensors"))
    made = under(studio, Picture("dev.safetensors"), "flux.safetensors", 0.6, 0.4, cfg=1.0)
    pipe = FluxControlNetPipeline(scheduler=flow(shift=math.exp(1.15)), controlnet=net, **parts)
    usual = {"control_image": image, "guidance_scale": 3.5, "control_guidance_end": 0.5}
    given = flux_latent(pipe, TEXT, controlnet_conditioning_scale=0.6, **usual)
    assert apart(flux_latent(pipe, TEXT, controlnet_conditioning_scale=0.0, **usual), given) > 100 * CLOSE
    assert apart(made, given) <= CLOSE


def test_sd3(studio: Studio):
    """InstantX' kind, which is told zeros for the pooled text and shown latents without their shift."""
    parts, image = make_sd3(studio, "sd3.safetensors"), studio.picture("hint.png", WIDTH, HEIGHT)
    config = {k: v for k, v in SD35.items() if k not in ("dual_attention_layers", "qk_norm")}
    config |= {"joint_attention_dim": SD3_TEXT, "num_layers": 1}
    net = SD3ControlNetModel(**config).eval()
    net.load_state_dict(drawn(net.state_dict(), seed=6))
    write(net.state_dict(), studio.path("controlnet", "sd3.safetensors"))
    made = under(studio, Picture("sd3.safetensors"), "sd3.safetensors", 0.6, 1.0)
    pipe = StableDiffusion3ControlNetPipeline(scheduler=flow(shift=3.0), controlnet=net, **parts)
    usual = {"control_image": image, "negative_prompt": "a dog"}
    given = sd3_latent(pipe, TEXT, controlnet_conditioning_scale=0.6, **usual)
    assert apart(sd3_latent(pipe, TEXT, controlnet_conditioning_scale=0.0, **usual), given) > 100 * CLOSE
    assert apart(made, given) <= CLOSE
