"""`comfy.cli_args`: flags that packs look at. They say how this studio runs; they are not for setting."""

from __future__ import annotations

from enum import StrEnum
from types import SimpleNamespace


class LatentPreviewMethod(StrEnum):
    NoPreviews = "none"
    Auto = "auto"
    Latent2RGB = "latent2rgb"
    TAESD = "taesd"


args = SimpleNamespace(
    cpu=False,
    lowvram=False,
    novram=False,
    highvram=False,
    gpu_only=False,
    disable_metadata=False,
    deterministic=False,
    multi_user=False,
    listen="127.0.0.1",
    port=7860,
    verbose="INFO",
    preview_method="auto",
    base_directory=None,
    output_directory=None,
    input_directory=None,
)
