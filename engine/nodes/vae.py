"""Nodes between pictures and latents. LATENT samples are in the VAE's own scale, as ComfyUI's."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from engine.errors import GraphError
from engine.families.base import Vae
from engine.graph.node import IMAGE, VAE, In, NodeContext, Out, node

# Bytes of activations per pixel and byte of a number, measured with the VAE of SD 1.x at 512 px.
DECODE_WORKING = 1100
ENCODE_WORKING = 700


class WrongLatent(GraphError):
    en = "This VAE takes latents of {need} channels, this one has {got}. Use the VAE of the model that made it."
    zh = "此 VAE 需要 {need} 通道的潜变量，而输入有 {got} 个通道。请使用生成该潜变量的模型的 VAE。"


class TooSmall(GraphError):
    en = "A picture of {width} x {height} can't be encoded: this VAE needs at least {factor} pixels a side."
    zh = "无法编码 {width} x {height} 的图像：此 VAE 要求每边至少 {factor} 像素。"


@node("VAEDecode", title="VAE Decode", title_zh="VAE 解码", category="latent", outputs=[Out("IMAGE")])
def vae_decode(
    ctx: NodeContext,
    samples: Annotated[dict[str, Any], In("LATENT", tooltip="The latent to be decoded.")],
    vae: Annotated[Vae, In("VAE", tooltip="The VAE model used for decoding the latent.")],
) -> tuple[Tensor]:
    """One picture at a time, so that a batch needs no more room than a picture."""
    latents: Tensor = samples["samples"]
    if latents.shape[1] != vae.latent.channels:
        raise WrongLatent(need=vae.latent.channels, got=latents.shape[1])
    pixels = latents.shape[-1] * latents.shape[-2] * vae.factor**2
    images: list[Tensor] = []
    with ctx.models.lease(vae.ref, working=_working(ctx, pixels, DECODE_WORKING)) as leased, torch.no_grad():
        for latent in latents.split(1):
            ctx.interrupt_check()
            scaled = (latent.to(leased.device) - vae.latent.shift) * vae.latent.scale
            image = vae.family.decode_latent(leased[vae.ref], vae, scaled)
            images.append(((image + 1) / 2).clamp(0, 1).movedim(1, -1).float().cpu())
    return (torch.cat(images),)


@node("VAEEncode", title="VAE Encode", title_zh="VAE 编码", category="latent", outputs=[Out("LATENT")])
def vae_encode(ctx: NodeContext, pixels: IMAGE, vae: VAE) -> tuple[dict[str, Any]]:
    """What does not fill a latent cell is cut off, on both sides alike."""
    return ({"samples": encoded_picture(ctx, vae, pixels)},)


def encoded_picture(ctx: NodeContext, vae: Vae, pixels: Tensor) -> Tensor:
    """(batch, height, width, channel) in 0..1 -> (batch, c, height / factor, width / factor) in the VAE's scale, on the
    CPU. Raises TooSmall."""
    image = cropped(pixels, vae.factor)
    count = image.shape[1] * image.shape[2]
    latents: list[Tensor] = []
    with ctx.models.lease(vae.ref, working=_working(ctx, count, ENCODE_WORKING)) as leased, torch.no_grad():
        for one in image.split(1):
            ctx.interrupt_check()
            wide = one[..., :3].movedim(-1, 1).to(leased.device) * 2 - 1
            scaled = vae.family.encode_image(leased[vae.ref], vae, wide)
            latents.append((scaled / vae.latent.scale + vae.latent.shift).float().cpu())
    return torch.cat(latents)


def cropped(image: Tensor, factor: int) -> Tensor:
    """(batch, height, width, channel) cut around its middle to whole latent cells. Raises TooSmall."""
    height, width = image.shape[1:3]
    if height < factor or width < factor:
        raise TooSmall(width=width, height=height, factor=factor)
    y, x = (height % factor) // 2, (width % factor) // 2
    return image[:, y : y + height - height % factor, x : x + width - width % factor]


def _working(ctx: NodeContext, pixels: int, per_pixel: int) -> int:
    return pixels * per_pixel * (4 if ctx.models.device.kind in ("cpu", "fake", "mps") else 2)
