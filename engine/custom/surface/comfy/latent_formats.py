"""`comfy.latent_formats`: how latents of the families' VAEs and those of their denoisers differ."""

from __future__ import annotations

from functools import partial
from typing import Any

from engine.custom.links import missing
from engine.custom.links.sampling import PackLatentFormat
from engine.families import flux, sd1, sd3, sdxl

LatentFormat = PackLatentFormat
SD15 = partial(PackLatentFormat, sd1.SPEC.latent)
SDXL = partial(PackLatentFormat, sdxl.SPEC.latent)
SD3 = partial(PackLatentFormat, sd3.SPEC.latent)
Flux = partial(PackLatentFormat, flux.SPEC.latent)


def __getattr__(name: str) -> Any:
    raise missing("comfy.latent_formats", name, "LatentFormat, SD15, SDXL, SD3, Flux")
