"""diffusers' AutoencoderTiny where an AutoencoderKL is expected: latents in and out are in the VAE's own scale."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from torch import Tensor, nn

from engine.errors import FileError
from engine.weights.load import read_tensors

if TYPE_CHECKING:
    from engine.families.approximate import Half


class IncompleteHalf(FileError):
    en = "{path}: the {part} lacks {count} weights, such as '{name}'. The file is incomplete or of another kind."
    zh = "{path}：{part} 缺少 {count} 个权重，例如“{name}”。文件不完整或类型不符。"


class TinyVae(nn.Module):
    """Its net works on latents as the denoiser sees them: (latents - shift) * scale."""

    def __init__(self, net: AutoencoderTiny, scale: float, shift: float) -> None:
        super().__init__()
        self.net = net
        self.scale = scale
        self.shift = shift

    @property
    def dtype(self) -> torch.dtype:
        return self.net.dtype

    def encode(self, pixels: Tensor, return_dict: bool = False) -> tuple[Any]:
        latents = self.net.encoder(pixels) / self.scale + self.shift
        return (SimpleNamespace(mean=latents),)

    def decode(self, latents: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        return (self.net.decoder((latents - self.shift) * self.scale),)


def filled(halves: Mapping[str, Half], config: Mapping[str, Any], dtype: torch.dtype) -> TinyVae:
    """Raises IncompleteHalf."""
    wide = (config["width"],) * 4
    with torch.device("meta"):
        net = AutoencoderTiny(
            encoder_block_out_channels=wide, decoder_block_out_channels=wide, latent_channels=config["channels"]
        )
    state: dict[str, Tensor] = {}
    for part, half in halves.items():
        need = net.get_submodule(part).state_dict()
        missing = sorted(name for name in need if name not in half.names or half.shape(name) != tuple(need[name].shape))
        if missing:
            raise IncompleteHalf(path=half.header.path, part=part, count=len(missing), name=missing[0])
        read = read_tensors(half.header, [half.names[name] for name in need], dtype)
        state |= {f"{part}.{name}": read[half.names[name]] for name in need}
    net.load_state_dict(state, assign=True)
    return TinyVae(net, config["scale"], config["shift"])
