"""UNets and autoencoders of diffusers: built on meta, and called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from engine.errors import GraphError
from engine.families.base import TextBatch
from engine.families.controls.base import Residuals


class NoPooledText(GraphError):
    en = "A prompt has no pooled text, which SDXL reads. Encode it with the CLIP of an SDXL model."
    zh = "提示词缺少 SDXL 需要的池化文本。请用 SDXL 模型的 CLIP 编码。"


def build_unet(config: Mapping[str, Any]) -> UNet2DConditionModel:
    with torch.device("meta"):
        return UNet2DConditionModel(**config)


def build_vae(config: Mapping[str, Any]) -> AutoencoderKL:
    with torch.device("meta"):
        return AutoencoderKL(**config)


def predict(
    module: nn.Module, x: Tensor, timesteps: Tensor, text: TextBatch, control: Residuals | None = None
) -> Tensor:
    """`text.extra` may hold "concat", channels beside x's, and "time_ids" (batch, n), the numbers that go with the
    pooled text."""
    unet = cast(UNet2DConditionModel, module)
    dtype = cast(Any, unet).conv_in.bias.dtype  # weights may be stored in another type than they are used in
    if "concat" in text.extra:
        x = torch.cat([x, text.extra["concat"].to(x)], dim=1)
    added: dict[str, Tensor] | None = None
    if "time_ids" in text.extra:
        if text.pooled is None:
            raise NoPooledText()
        added = {"text_embeds": text.pooled.to(dtype), "time_ids": text.extra["time_ids"]}
    more: dict[str, Any] = {"encoder_hidden_states": text.cross.to(dtype), "added_cond_kwargs": added}
    if control is not None:
        more |= _added(control, dtype)
    return unet(x.to(dtype), timesteps, return_dict=False, **more)[0]


def _added(control: Residuals, dtype: torch.dtype) -> dict[str, Any]:
    """ControlNets' residuals in diffusers' words: "down" and "mid" lie over the skips, "intra" over the layers."""
    more: dict[str, Any] = {}
    if "down" in control:
        more["down_block_additional_residuals"] = tuple(residual.to(dtype) for residual in control["down"])
        more["mid_block_additional_residual"] = control["mid"][0].to(dtype)
    if "intra" in control:
        more["down_intrablock_additional_residuals"] = [residual.to(dtype) for residual in control["intra"]]
    return more


def encode(module: nn.Module, pixels: Tensor) -> Tensor:
    """The mean of the latent distribution."""
    vae = cast(AutoencoderKL, module)
    moments = vae.encode(pixels.to(vae.dtype), return_dict=False)[0]
    return cast(Any, moments).mean.float()


def decode(module: nn.Module, latents: Tensor) -> Tensor:
    vae = cast(AutoencoderKL, module)
    return cast(Tensor, vae.decode(cast(Any, latents.to(vae.dtype)), return_dict=False)[0]).float()
