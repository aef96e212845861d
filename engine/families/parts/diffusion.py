"""UNets and autoencoders of diffusers: built on meta, filled from a file by key map, and called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from engine.errors import FileError
from engine.families.base import TextBatch
from engine.weights.header import Header
from engine.weights.load import read_tensors

Rename = Callable[[str], str | None]  # a name in the file -> the name in the module; None when it is not wanted


class MissingWeights(FileError):
    en = "{path}: the {part} lacks {count} weights, such as '{name}'. The file is incomplete or of another kind."
    zh = "{path}：{part} 缺少 {count} 个权重，例如“{name}”。文件不完整或类型不符。"


class WrongShape(FileError):
    en = "{path}: '{name}' has the shape {shape}, but the {part} needs {need}."
    zh = "{path}：“{name}”的形状为 {shape}，但 {part} 需要 {need}。"


def build_unet(config: Mapping[str, Any]) -> UNet2DConditionModel:
    with torch.device("meta"):
        return UNet2DConditionModel(**config)


def build_vae(config: Mapping[str, Any]) -> AutoencoderKL:
    with torch.device("meta"):
        return AutoencoderKL(**config)


def fill(
    module: nn.Module,
    part: str,
    header: Header,
    rename: Rename,
    dtype: torch.dtype,
    rounded: torch.dtype | None = None,
) -> nn.Module:
    """Give a skeleton its weights. What the file has beyond them is left alone. With `rounded` they take the values
    they have in that type.

    A 1x1 convolution in the file stands for a linear layer in the module (LDM's autoencoders), and the other way.
    Raises MissingWeights, WrongShape.
    """
    need = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    names = {own: name for name in header.tensors if (own := rename(name)) in need}
    missing = sorted(set(need) - set(names))
    if missing:
        raise MissingWeights(path=header.path, part=part, count=len(missing), name=missing[0])
    for own, name in names.items():
        if _squeezed(header.shape(name)) != _squeezed(need[own]):
            raise WrongShape(path=header.path, part=part, name=name, shape=header.shape(name), need=need[own])
    tensors = read_tensors(header, names.values(), dtype)
    if rounded is not None:
        tensors = {name: tensor.to(rounded).to(dtype) for name, tensor in tensors.items()}
    module.load_state_dict({own: tensors[name].view(need[own]) for own, name in names.items()}, assign=True)
    return module


def predict(module: nn.Module, x: Tensor, timesteps: Tensor, text: TextBatch) -> Tensor:
    """`text.extra` may hold "concat", channels beside x's, and "time_ids" (batch, n), the numbers that go with the
    pooled text."""
    unet = cast(UNet2DConditionModel, module)
    dtype = unet.conv_in.weight.dtype
    if "concat" in text.extra:
        x = torch.cat([x, text.extra["concat"].to(x)], dim=1)
    added: dict[str, Tensor] | None = None
    if "time_ids" in text.extra:
        assert text.pooled is not None, "a UNet that is told sizes is told the pooled text as well"
        added = {"text_embeds": text.pooled.to(dtype), "time_ids": text.extra["time_ids"]}
    hidden = text.cross.to(dtype)
    return unet(x.to(dtype), timesteps, encoder_hidden_states=hidden, added_cond_kwargs=added, return_dict=False)[0]


def encode(module: nn.Module, pixels: Tensor) -> Tensor:
    """The mean of the latent distribution."""
    vae = cast(AutoencoderKL, module)
    moments = vae.encode(pixels.to(vae.dtype), return_dict=False)[0]
    return cast(Any, moments).mean.float()


def decode(module: nn.Module, latents: Tensor) -> Tensor:
    vae = cast(AutoencoderKL, module)
    return cast(Tensor, vae.decode(cast(Any, latents.to(vae.dtype)), return_dict=False)[0]).float()


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape
