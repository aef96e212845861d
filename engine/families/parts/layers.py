"""Layers whose weights stay as their file has them - half types, float8 with a scale, GGUF's blocks - and are unpacked
whenever they run. A model takes the memory of its file; what a call needs beside it is one layer, unpacked.

A weight is one or two flat tensors (numbers or bytes, and a scale), which move like any others: whoever streams layers
to a device later copies those, never an unpacked weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.weights.gguf import row_shape


@dataclass(frozen=True)
class Storage:
    """How a weight is kept: `dtype` of its numbers, or `gguf` ("Q4_K") with rows of bytes."""

    dtype: torch.dtype = torch.uint8
    gguf: str = ""


def keep_stored(module: nn.Module, storages: Mapping[str, Storage]) -> None:
    """Put layers that unpack their weights in the place of a skeleton's. `storages` by the name of the layer."""
    for name, storage in storages.items():
        parent, _, own = name.rpartition(".")
        layer = module.get_submodule(name)
        setattr(module.get_submodule(parent), own, _stored_like(layer, storage))


def can_keep(layer: nn.Module) -> bool:
    """Whether a layer has a kind here. Subclasses of the library may use their weight in ways of their own."""
    return type(layer) in (nn.Linear, nn.Conv2d, nn.Embedding)


class StoredLinear(nn.Linear):
    storage: Storage
    weight_scale: Tensor | None
    plain: Tensor | None = None  # an unpacked weight that stands in for a while

    def forward(self, input: Tensor) -> Tensor:
        return cast(Tensor, _Unpacked.apply(input, self))


class StoredConv2d(nn.Conv2d):
    storage: Storage
    weight_scale: Tensor | None
    plain: Tensor | None = None

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, unpacked(self, input.dtype), self.bias)


class StoredEmbedding(nn.Embedding):
    """Only the rows that are asked for are unpacked, into `compute`."""

    storage: Storage
    weight_scale: Tensor | None
    plain: Tensor | None = None
    compute: torch.dtype = torch.float32

    def forward(self, input: Tensor) -> Tensor:
        if self.plain is not None:
            return F.embedding(input, self.plain.to(self.compute))
        ids, scale = input.flatten(), self.weight_scale
        rows = self.weight.view(torch.uint8)[ids].view(self.weight.dtype)
        own = scale[ids] if scale is not None and scale.numel() > 1 else scale
        return _numbers(rows, self.storage, own, self.compute).view(*input.shape, -1)


Stored = StoredLinear | StoredConv2d | StoredEmbedding


def unpacked(layer: Stored, dtype: torch.dtype) -> Tensor:
    """The weight of a layer as numbers of that type."""
    if layer.plain is not None:
        return layer.plain.to(dtype)
    weight = _numbers(layer.weight, layer.storage, layer.weight_scale, dtype)
    if isinstance(layer, StoredConv2d):
        return weight.view(layer.out_channels, -1, *layer.kernel_size)
    return weight.view(layer.out_features, -1) if isinstance(layer, StoredLinear) else weight


def dense_weight(layer: nn.Module) -> Tensor:
    """The weight of any layer as plain numbers: as it is, or unpacked in float32."""
    return unpacked(layer, torch.float32) if isinstance(layer, Stored) else layer.get_parameter("weight")


def unpack_all(module: nn.Module) -> None:
    """Plain layers in the place of those that keep their weights stored, in the type of the other parameters."""
    stored = list(stored_layers(module))
    own = {id(layer.weight) for _, layer in stored}
    others = (p.dtype for p in module.parameters() if id(p) not in own and p.is_floating_point())
    dtype = next(others, torch.float32)
    for name, layer in stored:
        parent, _, leaf = name.rpartition(".")
        with torch.device("meta"):
            plain = _plain_like(layer)
        plain.weight = nn.Parameter(unpacked(layer, dtype), requires_grad=False)
        if layer._parameters.get("bias") is not None:
            plain.register_parameter("bias", layer._parameters["bias"])
        setattr(module.get_submodule(parent), leaf, plain.eval())


class _Unpacked(torch.autograd.Function):
    """x W^T + b. The way back unpacks W again, so that a training keeps no layer in the type it runs in."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: StoredLinear) -> Tensor:
        ctx.layer = layer
        return F.linear(x, unpacked(layer, x.dtype), None if layer.bias is None else layer.bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] @ unpacked(ctx.layer, grads[0].dtype), None


def _plain_like(layer: Stored) -> nn.Linear | nn.Conv2d | nn.Embedding:
    if isinstance(layer, StoredLinear):
        return nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
    if isinstance(layer, StoredEmbedding):
        return nn.Embedding(layer.num_embeddings, layer.embedding_dim, layer.padding_idx)
    options: Any = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
    options |= {"groups": layer.groups, "bias": layer.bias is not None, "padding_mode": layer.padding_mode}
    return nn.Conv2d(layer.in_channels, layer.out_channels, cast(Any, layer.kernel_size), **options)


def _stored_like(layer: nn.Module, storage: Storage) -> Stored:
    """The same layer, its weight on meta and frozen, in its storage."""
    with torch.device("meta"):
        if isinstance(layer, nn.Linear):
            new: Stored = StoredLinear(layer.in_features, layer.out_features, layer.bias is not None)
        elif isinstance(layer, nn.Conv2d):
            options: Any = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
            options |= {"groups": layer.groups, "bias": layer.bias is not None, "padding_mode": layer.padding_mode}
            new = StoredConv2d(layer.in_channels, layer.out_channels, cast(Any, layer.kernel_size), **options)
        elif isinstance(layer, nn.Embedding):
            new = StoredEmbedding(layer.num_embeddings, layer.embedding_dim, layer.padding_idx)
        else:
            raise TypeError(f"a {type(layer).__name__} can't keep its weight stored")
        shape = tuple(new.weight.shape)
        if storage.gguf:
            shape = row_shape(storage.gguf, shape)
        new.weight = nn.Parameter(torch.empty(shape, dtype=storage.dtype), requires_grad=False)
        new.register_buffer("weight_scale", None)
    new.storage = storage
    return new


def _numbers(stored: Tensor, storage: Storage, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    numbers = gguf_numbers(stored, storage.gguf, dtype) if storage.gguf else stored.to(dtype)
    if scale is None:
        return numbers
    return scaled(numbers, scale.to(dtype))


def scaled(numbers: Tensor, scale: Tensor) -> Tensor:
    """By one number, by one for each row, or (rows, blocks, 1) by one for each block of a row, as kohya's files have
    it."""
    if scale.numel() == 1:
        return numbers * scale
    rows = numbers.shape[0]
    return (numbers.view(rows, scale.numel() // rows, -1) * scale.view(rows, -1, 1)).view(numbers.shape)


def gguf_numbers(rows: Tensor, kind: str, dtype: torch.dtype) -> Tensor:
    """Rows of GGUF's blocks as numbers: (rows, bytes of a row) -> (rows, columns). The arithmetic is in float32."""
    from diffusers.quantizers.gguf.utils import dequantize_functions
    from gguf.constants import GGMLQuantizationType

    block, size = _block(kind)
    blocks = rows.reshape(-1, size)
    unpack = dequantize_functions[GGMLQuantizationType[kind]]
    return unpack(blocks, block, size, torch.float32).reshape(rows.shape[0], -1).to(dtype)


def stored_layers(module: nn.Module) -> Iterable[tuple[str, Stored]]:
    return ((name, layer) for name, layer in module.named_modules() if isinstance(layer, Stored))


def _block(kind: str) -> tuple[int, int]:
    """Numbers and bytes of one block."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    return GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
