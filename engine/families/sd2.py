"""Stable Diffusion 2.x: a UNet that attends to OpenCLIP's H, with heads of 64 and linear layers around its attention.

The models for 512 px predict eps, those for 768 px v, in files that look alike.
"""

from __future__ import annotations

from engine.families.base import Defaults, FamilySpec, Prediction
from engine.families.parts.text_encoder import CLIP_H
from engine.families.parts.unet_family import UNetFamily
from engine.families.parts.unet_kind import UNetFacts, UNetKind, heads_of_64
from engine.families.sd1 import SPEC as SD1
from engine.weights.header import Header
from engine.weights.numbers import spread

SPEC = FamilySpec(
    name="sd2",
    title="Stable Diffusion 2.x",
    prediction="eps",
    latent=SD1.latent,
    defaults=Defaults(width=768, height=768),
    architecture="stable-diffusion-v2-512",
    base_model_version="sd_v2",
    family_class="engine.families.sd2:SD2",
    text_widths=(1024, 1024),
    clip_types=("stable_diffusion",),
)
# A norm's bias in the last block spreads by less than this in Stability's models that predict eps, by more in those
# that predict v: known from ComfyUI's behaviour.
NARROW = 0.09


def guessed(header: Header, unet: UNetFacts) -> Prediction:
    return "v" if spread(header, f"{unet.prefix}{unet.last_norm}") > NARROW else "eps"


KIND = UNetKind(
    spec=SPEC,
    encoders=(CLIP_H,),
    fits=lambda unet: unet.linear and unet.finest and not unet.vector,
    unet=heads_of_64,
    vae={"norm_num_groups": 32, "scaling_factor": 0.18215},
    guess=guessed,
)
detect, detect_denoiser = KIND.detect, KIND.detect_denoiser
detect_vae, detect_clip = KIND.detect_vae, KIND.detect_clip


class SD2(UNetFamily):
    kind = KIND
