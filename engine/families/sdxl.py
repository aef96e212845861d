"""SDXL base and what was made of it (turbo, lightning, v-prediction): a UNet that attends to CLIP-L and OpenCLIP's G
side by side, and is told G's pooled text, the size a picture had, where it was cropped, and the size it shall have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.families.base import Defaults, FamilySpec, LatentFormat, Model, Part
from engine.families.parts.text_encoder import CLIP_G, CLIP_L
from engine.families.parts.unet_family import UNetFamily
from engine.families.parts.unet_kind import SIZE_EMBEDDING, UNetFacts, UNetKind, heads_of_64
from engine.weights import keymaps, lora

if TYPE_CHECKING:
    import torch

LATENT = LatentFormat(
    channels=4,
    scale=0.13025,
    # a linear fit: https://huggingface.co/blog/TimothyAlexisVass/explaining-the-sdxl-latent-space
    rgb=((0.4706, 0.4706, 0.4706), (-0.4706, -0.0392, 0.0784), (0.1961, 0.1176, -0.0392), (-0.549, -0.3922, -0.2745)),
    rgb_bias=(0.1765, 0.098, 0.0196),
)
SPEC = FamilySpec(
    name="sdxl",
    title="SDXL",
    prediction="eps",
    latent=LATENT,
    defaults=Defaults(width=1024, height=1024, steps=25, cfg=6.0, sampler_name="dpmpp_2m", scheduler="karras"),
    architecture="stable-diffusion-xl-v1-base",
    base_model_version="sdxl_base_v1-0",
    family_class="engine.families.sdxl:SDXL",
    text_widths=(2048, 1280),
    clip_types=("sdxl",),
)
VAE = {"norm_num_groups": 32, "scaling_factor": LATENT.scale}


def sizes_told(unet: UNetFacts) -> int:
    """How many numbers go with the pooled text. The base has text of two widths and six numbers, the refiner one text,
    as wide as its pooled one, and five."""
    return 5 if unet.vector - 5 * SIZE_EMBEDDING == unet.context else 6


def unet_config(sizes: Mapping[str, Any]) -> dict[str, Any]:
    return {**heads_of_64(sizes), "addition_embed_type": "text_time", "addition_time_embed_dim": SIZE_EMBEDDING}


KIND = UNetKind(
    spec=SPEC,
    encoders=(
        replace(CLIP_L, prefixes=("conditioner.embedders.0.transformer.",), layer=-2, normed=False),
        CLIP_G,
    ),
    fits=lambda unet: bool(unet.vector) and not unet.finest and sizes_told(unet) == 6,
    unet=unet_config,
    vae=VAE,
)
detect, detect_denoiser = KIND.detect, KIND.detect_denoiser
detect_vae, detect_clip = KIND.detect_vae, KIND.detect_clip


class SDXL(UNetFamily):
    kind = KIND
    told = 6

    def extra_conditions(
        self, model: Model, pooled: torch.Tensor | None, options: Mapping[str, Any], latent: torch.Tensor
    ) -> Mapping[str, torch.Tensor]:
        """Without a word about sizes, the picture was as large as it shall become."""
        width, height = size_of(options, latent)
        told = [height, width, options.get("crop_h", 0), options.get("crop_w", 0)]
        told += [options.get("target_height", height), options.get("target_width", width)]
        return {**super().extra_conditions(model, pooled, options, latent), "time_ids": time_ids(told, latent)}

    def lora_key(self, model: Model, part: Part, module_name: str) -> str:
        """kohya names the UNet of SDXL as Stability does, that of SD 1 and 2 as diffusers."""
        if part == "denoiser":
            return lora.kohya_name("lora_unet", keymaps.unet_map(model.config).to_ldm(module_name) or module_name)
        return super().lora_key(model, part, module_name)


def size_of(options: Mapping[str, Any], latent: torch.Tensor) -> tuple[int, int]:
    """Width and height of a conditioning entry in pixels; those of the latent where it has none."""
    return options.get("width", latent.shape[-1] * 8), options.get("height", latent.shape[-2] * 8)


def time_ids(told: list[float], latent: torch.Tensor) -> torch.Tensor:
    """(1, numbers) on the latent's device."""
    import torch

    return torch.tensor([told], dtype=torch.float32, device=latent.device)
