"""The demo model's autoencoder: learned at 64 px with factor 4, grown by a level to factor 8 at 128 px, and folded.

A four-level autoencoder learns slowly from nothing. Grown from a trained three-level one it starts as "average down,
decode, enlarge" and only has to learn the fine edges.
"""

from __future__ import annotations

import random
import time
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn

from studio.demo.making.muon import MuonAdamW, cosine
from studio.demo.making.pictures import pool, to_unit
from studio.demo.oddities import any_picture

SCALING_FACTOR = 0.18215  # SD 1.x's; fold() makes it true
GROUPS = 2  # with more groups, GroupNorm takes the level of flat colours away


class Losses(NamedTuple):
    """What a reconstruction costs."""

    total: Tensor
    l1: Tensor


def latents_of(vae: AutoencoderKL, x: Tensor) -> Any:
    """The posterior of pictures -1..1, diffusers' DiagonalGaussianDistribution; not scaled."""
    encoded: Any = vae.encode(x)
    return encoded.latent_dist


def decoded(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Pictures, about -1..1, of latents that are not scaled."""
    output: Any = vae.decode(latents)  # type: ignore[arg-type]
    return output.sample


def levels(vae: AutoencoderKL) -> tuple[int, ...]:
    """Channels of each level, the picture's end first."""
    config: Any = vae.config
    return tuple(config.block_out_channels)


def new_vae(channels: tuple[int, ...]) -> AutoencoderKL:
    """An untrained autoencoder whose residual branches start at zero, so that the signal gets through at once."""
    build: Any = AutoencoderKL
    vae: AutoencoderKL = build(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=1,
        norm_num_groups=GROUPS,
        latent_channels=4,
        sample_size=16 * 2 ** (len(channels) - 1),
        scaling_factor=SCALING_FACTOR,
    )
    module: Any
    for module in vae.modules():
        if type(module).__name__ == "ResnetBlock2D":
            _zero(module.conv2)
        elif type(module).__name__ == "Attention":
            _zero(module.to_out[0])
    return vae


def train(vae: AutoencoderKL, pixels: Tensor, steps: int, lr: float, batch: int = 16) -> None:
    """Trains encoder and decoder on `pixels`, bytes of (count, 3, height, width)."""
    optimizer = MuonAdamW([vae], lr, adam_ratio=1.0, momentum=0.9)
    start = time.time()
    for step in range(steps):
        x = to_unit(_augmented(pixels[torch.randint(0, len(pixels), (batch,))]))
        posterior = latents_of(vae, x)
        losses = reconstruction(decoded(vae, posterior.sample()), x)
        optimizer.step(losses.total + 2e-6 * posterior.kl().mean(), cosine(step, steps, warmup=60))
        if (step + 1) % 50 == 0:
            print(f"vae {step + 1}/{steps} l1 {losses.l1:.4f} {time.time() - start:.0f} s", flush=True)


def grow(small: AutoencoderKL, pixels: Tensor, steps: int = 300) -> AutoencoderKL:
    """A level more at the picture's end, which starts as averaging 2x2 in the encoder and repeating 2x2 in the decoder.

    `pixels` are bytes at the new size; the new encoder level is fitted to what the old first layer made of half of it.
    """
    channels = levels(small)
    vae: Any = new_vae((channels[0], *channels))
    for part in ("quant_conv", "post_quant_conv"):
        getattr(vae, part).load_state_dict(getattr(small, part).state_dict())
    for part in ("mid_block", "conv_norm_out", "conv_out"):
        getattr(vae.encoder, part).load_state_dict(getattr(small.encoder, part).state_dict())
        getattr(vae.decoder, part).load_state_dict(getattr(small.decoder, part).state_dict())
    vae.decoder.conv_in.load_state_dict(small.decoder.conv_in.state_dict())
    for old, new in zip(small.encoder.down_blocks, vae.encoder.down_blocks[1:], strict=True):
        new.load_state_dict(old.state_dict())
    for old, new in zip(small.decoder.up_blocks, vae.decoder.up_blocks[:-1], strict=True):
        new.load_state_dict(old.state_dict(), strict=False)
    enlarge = vae.decoder.up_blocks[-2].upsamplers[0].conv
    _zero(enlarge)
    with torch.no_grad():
        enlarge.weight[:, :, 1, 1] = torch.eye(channels[0])
    _fit_first_level(small, vae, pixels, steps)
    return vae


@torch.no_grad()
def fold(vae: AutoencoderKL, pixels: Tensor) -> None:
    """Gives every latent channel mean 0 and variance 1 at SD's scaling factor, without changing what is decoded.

    The affine map and its inverse go into quant_conv and post_quant_conv.
    """
    latents = encode(vae, pixels)
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    gain = 1 / (std * SCALING_FACTOR)
    before: Any = vae.quant_conv
    after: Any = vae.post_quant_conv
    after.bias.add_(after.weight[:, :, 0, 0] @ mean)
    after.weight.div_(gain[None, :, None, None])
    before.weight[:4].mul_(gain[:, None, None, None])
    before.bias[:4] = (before.bias[:4] - mean) * gain
    before.bias[4:].add_(2 * gain.log())
    vae.register_to_config(scaling_factor=SCALING_FACTOR)


def tune_decoder(vae: AutoencoderKL, pixels: Tensor, steps: int, lr: float = 3e-3, batch: int = 16) -> None:
    """Trains the decoder alone, on slightly wrong latents too; the latents stay what they are."""
    vae.encoder.requires_grad_(False)
    if vae.quant_conv is not None:
        vae.quant_conv.requires_grad_(False)
    latents = encode(vae, pixels)
    optimizer = MuonAdamW([vae], lr)
    start = time.time()
    for step in range(steps):
        index = torch.randint(0, len(pixels), (batch,))
        noise = torch.randn(batch, *latents.shape[1:]) * torch.rand(batch, 1, 1, 1) * 0.06 / SCALING_FACTOR
        losses = reconstruction(decoded(vae, latents[index] + noise), to_unit(pixels[index]))
        optimizer.step(losses.total, cosine(step, steps))
        if (step + 1) % 50 == 0:
            print(f"decoder {step + 1}/{steps} l1 {losses.l1:.4f} {time.time() - start:.0f} s", flush=True)


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """The latents' means, not scaled; (count, 4, height / f, width / f)."""
    return torch.cat([latents_of(vae, to_unit(part)).mean for part in pixels.split(50)])


@torch.no_grad()
def psnr(vae: AutoencoderKL, pixels: Tensor) -> float:
    """Peak signal to noise of encoding and decoding, in dB over all pictures."""
    pictures = torch.cat([decoded(vae, z).clamp(-1, 1) for z in encode(vae, pixels).split(50)])
    return float(-10 * (F.mse_loss(pictures, to_unit(pixels)) / 4).log10())


def reconstruction(picture: Tensor, target: Tensor) -> Losses:
    """L1 + L2 + half of the L1 between the pictures' edges."""
    l1 = F.l1_loss(picture, target)
    edges = sum(F.l1_loss(a, b) for a, b in zip(_edges(picture), _edges(target), strict=True))
    return Losses(l1 + F.mse_loss(picture, target) + 0.5 * edges, l1)


def make(quick: bool, seed: int = 1) -> AutoencoderKL:
    """The whole way from nothing to a folded factor-8 autoencoder; the decoder is tuned later."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    count = 200 if quick else 12000
    small = new_vae((16, 24, 32))
    train(small, pool(lambda: any_picture(rng, 64), count), steps=20 if quick else 1000, lr=6e-3)
    pixels = pool(lambda: any_picture(rng), count // 2)
    vae = grow(small, pixels, steps=20 if quick else 300)
    train(vae, pixels, steps=20 if quick else 700, lr=4e-3)
    fold(vae, pixels[:600])
    return vae


def tune(vae: AutoencoderKL, quick: bool, seed: int = 2) -> None:
    """Draws fresh pictures and tunes the decoder on them."""
    torch.manual_seed(seed)
    rng = random.Random(20 + seed)
    tune_decoder(vae, pool(lambda: any_picture(rng), 100 if quick else 5000), steps=10 if quick else 1200)
    vae.eval()


def _fit_first_level(small: AutoencoderKL, vae: Any, pixels: Tensor, steps: int) -> None:
    """Fits the new conv_in and its strided convolution to conv_in of the small encoder on averaged pictures."""
    first, down = vae.encoder.conv_in, vae.encoder.down_blocks[0].downsamplers[0]
    optimizer = torch.optim.Adam([*first.parameters(), *down.parameters()], lr=5e-3)
    for step in range(steps):
        x = to_unit(pixels[torch.randint(0, len(pixels), (8,))])
        with torch.no_grad():
            wanted = small.encoder.conv_in(F.avg_pool2d(x, 2))
        loss = F.mse_loss(down(first(x)), wanted) / wanted.var()
        optimizer.param_groups[0]["lr"] = 5e-3 * cosine(step, steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step == steps - 1:
            print(f"first level: {loss.item():.4f} of the variance is missed", flush=True)


def _zero(layer: nn.Module) -> None:
    for param in layer.parameters():
        nn.init.zeros_(param)


def _edges(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]


def _augmented(pixels: Tensor) -> Tensor:
    """Flipped and with exchanged colour channels now and then."""
    if random.random() < 0.5:
        pixels = pixels.flip(3)
    if random.random() < 0.2:
        pixels = pixels.flip(2)
    return pixels[:, torch.randperm(3)] if random.random() < 0.25 else pixels
