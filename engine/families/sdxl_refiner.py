"""The refiner of SDXL: a UNet for the last steps, which attends to OpenCLIP's G alone and is told how good the picture
is to look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.families.base import FamilySpec, Model
from engine.families.parts.text_encoder import CLIP_G
from engine.families.parts.unet_family import UNetFamily
from engine.families.parts.unet_kind import UNetKind
from engine.families.sdxl import SPEC as SDXL
from engine.families.sdxl import VAE, size_of, sizes_told, time_ids, unet_config

if TYPE_CHECKING:
    import torch

SPEC = FamilySpec(
    name="sdxl_refiner",
    title="SDXL refiner",
    prediction="eps",
    latent=SDXL.latent,
    defaults=SDXL.defaults,
    architecture="stable-diffusion-xl-v1-refiner",
    base_model_version="sdxl_refiner_v1-0",
    family_class="engine.families.sdxl_refiner:SDXLRefiner",
    text_widths=(1280, 1280),
    clip_types=("stable_diffusion",),
)
KIND = UNetKind(
    spec=SPEC,
    encoders=(replace(CLIP_G, prefixes=("conditioner.embedders.0.model.",)),),
    fits=lambda unet: bool(unet.vector) and not unet.finest and sizes_told(unet) == 5,
    unet=unet_config,
    vae=VAE,
)
detect, detect_denoiser = KIND.detect, KIND.detect_denoiser
detect_vae, detect_clip = KIND.detect_vae, KIND.detect_clip
SCORES = {"positive": 6.0, "negative": 2.5}  # that a prompt asks for without a word about it


class SDXLRefiner(UNetFamily):
    kind = KIND
    told = 5

    def extra_conditions(
        self, model: Model, pooled: torch.Tensor | None, options: Mapping[str, Any], latent: torch.Tensor
    ) -> Mapping[str, torch.Tensor]:
        width, height = size_of(options, latent)
        score = options.get("aesthetic_score", SCORES[options.get("prompt_type", "positive")])
        told = [height, width, options.get("crop_h", 0), options.get("crop_w", 0), score]
        return {**super().extra_conditions(model, pooled, options, latent), "time_ids": time_ids(told, latent)}
