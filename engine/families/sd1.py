"""Stable Diffusion 1.x: a UNet that attends to one CLIP-L text encoder, with 1x1 convolutions around its attention."""

from __future__ import annotations

from engine.families.base import Defaults, FamilySpec, LatentFormat
from engine.families.parts.text_encoder import CLIP_L
from engine.families.parts.unet_family import UNetFamily
from engine.families.parts.unet_kind import UNetKind

SPEC = FamilySpec(
    name="sd1",
    title="Stable Diffusion 1.x",
    prediction="eps",
    # a fit of RGB to latents of SD 1.5: https://discuss.huggingface.co/t/decoding-latents-to-rgb-without-upscaling/23204
    latent=LatentFormat(
        channels=4,
        scale=0.18215,
        rgb=((0.298, 0.207, 0.208), (0.187, 0.286, 0.173), (-0.158, 0.189, 0.264), (-0.184, -0.271, -0.473)),
    ),
    defaults=Defaults(),
    architecture="stable-diffusion-v1",
    base_model_version="sd_v1",
    family_class="engine.families.sd1:SD1",
    text_widths=(768, 768),
    clip_types=("stable_diffusion",),
)
KIND = UNetKind(
    spec=SPEC,
    encoders=(CLIP_L,),
    fits=lambda unet: not unet.linear and not unet.vector,
    # diffusers' name for the count of heads is an old mistake
    unet=lambda sizes: {"attention_head_dim": 8, "norm_num_groups": 32},
    vae={"norm_num_groups": 32, "scaling_factor": 0.18215},
)
detect, detect_denoiser = KIND.detect, KIND.detect_denoiser
detect_vae, detect_clip = KIND.detect_vae, KIND.detect_clip


class SD1(UNetFamily):
    kind = KIND
