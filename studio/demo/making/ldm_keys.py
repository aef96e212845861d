"""Names of SD 1.x's weights in a single-file (LDM) checkpoint for their names in diffusers and transformers.

Only SD 1.x's own block layout: four levels, two layers each. The number of the VAE's levels is free.
"""

from __future__ import annotations

import re

_UNET_PARTS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_UNET_LAYERS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_LAYERS = {
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.attentions.0": "mid.attn_1",
    "mid_block.resnets.1": "mid.block_2",
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


def unet_key(key: str) -> str:
    """diffusers' name of a UNet weight -> its name in the checkpoint."""
    for part, ldm in _UNET_PARTS.items():
        if key.startswith(part + "."):
            return "model.diffusion_model." + _unet_layers(ldm + key[len(part) :])
    match = re.match(r"(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.*)", key)
    if not match:
        raise ValueError(f"{key!r} is no weight of an SD 1.x UNet")
    side, level, kind, index, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    if kind == "downsamplers":
        place, rest = f"input_blocks.{3 * level + 3}.0", rest.replace("conv", "op", 1)
    elif kind == "upsamplers":
        place = f"output_blocks.{3 * level + 2}.{1 if level == 0 else 2}"
    else:
        block = f"input_blocks.{3 * level + index + 1}" if side == "down" else f"output_blocks.{3 * level + index}"
        place = f"{block}.{0 if kind == 'resnets' else 1}"
    return f"model.diffusion_model.{place}." + (_unet_layers(rest) if kind == "resnets" else rest)


def vae_key(key: str, levels: int) -> str:
    """diffusers' name of an autoencoder's weight -> its name in the checkpoint."""
    key = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", key)
    key = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", key)
    for part, ldm in _VAE_LAYERS.items():
        key = re.sub(rf"(^|\.){re.escape(part)}\.", rf"\g<1>{ldm}.", key)
    return "first_stage_model." + key


def is_vae_attention(key: str) -> bool:
    """Whether a checkpoint keeps this autoencoder weight as a 1x1 convolution where diffusers has a matrix."""
    return re.search(r"attn_1\.(q|k|v|proj_out)\.weight$", key) is not None


def text_key(key: str) -> str:
    """transformers' name of a text encoder weight, with or without "text_model.", -> its name in the checkpoint."""
    return "cond_stage_model.transformer.text_model." + key.removeprefix("text_model.")


def _unet_layers(rest: str) -> str:
    for part, ldm in _UNET_LAYERS.items():
        rest = re.sub(rf"(^|\.){part}\.", rf"\g<1>{ldm}.", rest) if "transformer_blocks" not in rest else rest
    return rest
