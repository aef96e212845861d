"""Tiny SD 2.x, SDXL and its refiner: parts for diffusers' pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.families.tiny_unets import Encoder, Tiny, make_tiny, unet_config
from tests.pipelines.checkpoints import clip_of, enliven, openclip_of, sd2_text_of, tokenizer, unet_of, vae_of
from tests.pipelines.running import Studio


def make_parts(studio: Studio, name: str, tiny: Tiny, **changes: Any) -> dict[str, Any]:
    """Writes the checkpoint `name` and reads it with diffusers' code."""
    path = enliven(make_tiny(studio.path("checkpoints", name), tiny, **changes), seed=len(name))
    parts: dict[str, Any] = {
        "unet": unet_of(path, unet_config(tiny)),
        "vae": vae_of(path, 3, scaling_factor=tiny.scale),
    }
    for encoder in tiny.encoders:
        parts[encoder.part] = _text(path, encoder)
        pad = "<|endoftext|>" if encoder.name == "l" else "!"  # OpenCLIP's pad is the token 0
        folder = studio.workspace.root / "tokenizers" / encoder.name
        parts[encoder.part.replace("text_encoder", "tokenizer")] = tokenizer(folder, pad)
    return parts


def _text(path: Path, encoder: Encoder) -> Any:
    config = {
        "hidden_size": encoder.width,
        "intermediate_size": 2 * encoder.width,
        "projection_dim": encoder.width,
        "num_hidden_layers": encoder.layers,
        "num_attention_heads": 4,
        "hidden_act": encoder.act,
    }
    read = {"l": clip_of, "h": sd2_text_of, "g": openclip_of}[encoder.name]
    return read(path, encoder.prefix, config)
