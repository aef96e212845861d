"""Nodes between pictures and latents. LATENT samples are in the VAE's own scale, as ComfyUI's."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import torch
from torch import Tensor

from engine.errors import GraphError
from engine.families.base import Vae
from engine.graph.node import IMAGE, LATENT, VAE, In, NodeContext, Out, node
from engine.models.manager import NoRoom
from engine.nodes import tiling

# Bytes of activations per pixel and byte of a number, measured with the VAE of SD 1.x at 512 px.
DECODE_WORKING = 1100
ENCODE_WORKING = 700
SPARE_TILE, SPARE_OVERLAP = 512, 128  # pixels, where a picture does not fit as a whole
PICTURE = 3  # channels

log = logging.getLogger(__name__)

Overlap = Annotated[int, In("INT", default=64, min=0, max=4096, step=32)]
TemporalSize = Annotated[int, In("INT", default=64, min=8, max=4096, step=4)]
TemporalOverlap = Annotated[int, In("INT", default=8, min=4, max=4096, step=4)]


class WrongLatent(GraphError):
    en = "This VAE takes latents of {need} channels, this one has {got}. Use the VAE of the model that made it."
    zh = "此 VAE 需要 {need} 通道的潜变量，而输入有 {got} 个通道。请使用生成该潜变量的模型的 VAE。"


class NoPicture(GraphError):
    en = "This VAE decodes pictures, (batch, channels, height, width); the latent has the shape {shape}."
    zh = "此 VAE 用于解码图片（批次, 通道, 高, 宽），而潜变量的形状为 {shape}。"


class TooSmall(GraphError):
    en = "A picture of {width} x {height} can't be encoded: this VAE needs at least {factor} pixels a side."
    zh = "无法编码 {width} x {height} 的图像：此 VAE 要求每边至少 {factor} 像素。"


@node("VAEDecode", title="VAE Decode", title_zh="VAE 解码", category="latent", outputs=[Out("IMAGE")])
def vae_decode(
    ctx: NodeContext,
    samples: Annotated[dict[str, Any], In("LATENT", tooltip="The latent to be decoded.")],
    vae: Annotated[Vae, In("VAE", tooltip="The VAE model used for decoding the latent.")],
) -> tuple[Tensor]:
    """One picture at a time, so that a batch needs no more room than a picture; in tiles where there is not so much."""
    latents = _checked(samples["samples"], vae)
    try:
        with _decoding(ctx, vae, latents.shape[-2:]) as decode:
            images = [decode(latent) for latent in latents.split(1)]
    except (NoRoom, torch.OutOfMemoryError) as error:
        log.warning("%s decodes in tiles, since it does not fit as a whole: %s", vae.ref.title, error)
        return (_decoded_in_tiles(ctx, vae, latents, SPARE_TILE // vae.factor, SPARE_OVERLAP // vae.factor),)
    return (_picture(torch.cat(images)),)


@node(
    "VAEDecodeTiled",
    title="VAE Decode (Tiled)",
    title_zh="VAE 解码（分块）",
    category="_for_testing",
    outputs=[Out("IMAGE")],
)
def vae_decode_tiled(
    ctx: NodeContext,
    samples: LATENT,
    vae: VAE,
    tile_size: Annotated[int, In("INT", default=512, min=64, max=4096, step=32)],
    overlap: Overlap,
    temporal_size: TemporalSize,
    temporal_overlap: TemporalOverlap,
) -> tuple[Tensor]:
    """An overlap of more than a quarter of the tile is a quarter. The temporal sizes are for VAEs of videos."""
    latents = _checked(samples["samples"], vae)
    overlap = tile_size // 4 if tile_size < overlap * 4 else overlap
    return (_decoded_in_tiles(ctx, vae, latents, tile_size // vae.factor, overlap // vae.factor),)


@node("VAEEncode", title="VAE Encode", title_zh="VAE 编码", category="latent", outputs=[Out("LATENT")])
def vae_encode(ctx: NodeContext, pixels: IMAGE, vae: VAE) -> tuple[dict[str, Any]]:
    """What does not fill a latent cell is cut off, on both sides alike."""
    return ({"samples": encoded_picture(ctx, vae, pixels)},)


@node(
    "VAEEncodeTiled",
    title="VAE Encode (Tiled)",
    title_zh="VAE 编码（分块）",
    category="_for_testing",
    outputs=[Out("LATENT")],
)
def vae_encode_tiled(
    ctx: NodeContext,
    pixels: IMAGE,
    vae: VAE,
    tile_size: Annotated[int, In("INT", default=512, min=64, max=4096, step=64)],
    overlap: Overlap,
    temporal_size: TemporalSize,
    temporal_overlap: TemporalOverlap,
) -> tuple[dict[str, Any]]:
    """An overlap that leaves nothing of half a tile is a quarter of the tile."""
    overlap = tile_size // 4 if overlap >= tile_size // 2 else overlap
    return ({"samples": _encoded_in_tiles(ctx, vae, pixels, tile_size, overlap)},)


def encoded_picture(ctx: NodeContext, vae: Vae, pixels: Tensor) -> Tensor:
    """(batch, height, width, channel) in 0..1 -> (batch, c, height / factor, width / factor) in the VAE's scale, on the
    CPU; in tiles where there is no room for the whole. Raises TooSmall."""
    image = cropped(pixels, vae.factor)
    try:
        with _encoding(ctx, vae, image.shape[1:3]) as encode:
            return torch.cat([encode(one) for one in _channels_first(image).split(1)])
    except (NoRoom, torch.OutOfMemoryError) as error:
        log.warning("%s encodes in tiles, since it does not fit as a whole: %s", vae.ref.title, error)
        return _encoded_in_tiles(ctx, vae, pixels, SPARE_TILE, SPARE_OVERLAP)


def _decoded_in_tiles(ctx: NodeContext, vae: Vae, latents: Tensor, tile: int, overlap: int) -> Tensor:
    """The mean of three ways to cut the picture, so that the seams of one are covered by the others, as ComfyUI's."""
    tile = max(2, tile)
    overlap = min(overlap, max(1, tile // 2) - 1)
    cuts = [(tile * 2, tile // 2), (tile // 2, tile * 2), (tile, tile)]
    step, total = itertools.count(1), sum(tiling.count(latents.shape, cut, overlap) for cut in cuts)
    with _decoding(ctx, vae, (tile, tile)) as decode:
        made = [
            tiling.tiled(latents, decode, cut, overlap, vae.factor, PICTURE, lambda: ctx.progress(next(step), total))
            for cut in cuts
        ]
    return _picture((made[0] + made[1] + made[2]) / 3.0)


def _encoded_in_tiles(ctx: NodeContext, vae: Vae, pixels: Tensor, tile: int, overlap: int) -> Tensor:
    image = _channels_first(cropped(pixels, vae.factor))
    cuts = [(tile, tile), (tile // 2, tile * 2), (tile * 2, tile // 2)]
    step, total = itertools.count(1), sum(tiling.count(image.shape, cut, overlap) for cut in cuts)
    with _encoding(ctx, vae, (tile, tile)) as encode:
        made = [
            tiling.tiled(
                image, encode, cut, overlap, 1 / vae.factor, vae.latent.channels,
                lambda: ctx.progress(next(step), total),
            )
            for cut in cuts
        ]  # fmt: skip
    return (made[0] + made[1] + made[2]) / 3.0


@contextmanager
def _decoding(ctx: NodeContext, vae: Vae, cells: Sequence[int]) -> Iterator[Callable[[Tensor], Tensor]]:
    """(1, c, h, w) in the VAE's scale -> (1, 3, h * factor, w * factor) in -1..1, with room for that many cells."""
    working = _working(ctx, cells[0] * cells[1] * vae.factor**2, DECODE_WORKING)
    with ctx.models.lease(vae.ref, working=working) as leased, torch.no_grad():

        def decode(latent: Tensor) -> Tensor:
            ctx.interrupt_check()
            scaled = (latent.to(leased.device) - vae.latent.shift) * vae.latent.scale
            return vae.family.decode_latent(leased[vae.ref], vae, scaled).float().cpu()

        yield decode


@contextmanager
def _encoding(ctx: NodeContext, vae: Vae, pixels: Sequence[int]) -> Iterator[Callable[[Tensor], Tensor]]:
    """(1, 3, h, w) in 0..1 -> (1, c, h / factor, w / factor) in the VAE's scale, with room for that many pixels."""
    working = _working(ctx, pixels[0] * pixels[1], ENCODE_WORKING)
    with ctx.models.lease(vae.ref, working=working) as leased, torch.no_grad():

        def encode(image: Tensor) -> Tensor:
            ctx.interrupt_check()
            scaled = vae.family.encode_image(leased[vae.ref], vae, image.to(leased.device) * 2 - 1)
            return (scaled / vae.latent.scale + vae.latent.shift).float().cpu()

        yield encode


def _checked(latents: Tensor, vae: Vae) -> Tensor:
    if latents.ndim != 4:
        raise NoPicture(shape=tuple(latents.shape))
    if latents.shape[1] != vae.latent.channels:
        raise WrongLatent(need=vae.latent.channels, got=latents.shape[1])
    return latents


def _picture(decoded: Tensor) -> Tensor:
    return ((decoded + 1) / 2).clamp(0, 1).movedim(1, -1)


def _channels_first(image: Tensor) -> Tensor:
    return image[..., :3].movedim(-1, 1)


def cropped(image: Tensor, factor: int) -> Tensor:
    """(batch, height, width, channel) cut around its middle to whole latent cells. Raises TooSmall."""
    height, width = image.shape[1:3]
    if height < factor or width < factor:
        raise TooSmall(width=width, height=height, factor=factor)
    y, x = (height % factor) // 2, (width % factor) // 2
    return image[:, y : y + height - height % factor, x : x + width - width % factor]


def _working(ctx: NodeContext, pixels: int, per_pixel: int) -> int:
    return pixels * per_pixel * (4 if ctx.models.device.kind in ("cpu", "fake", "mps") else 2)
