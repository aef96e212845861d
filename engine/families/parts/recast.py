"""A model in another type of numbers: a model of the manager's of its own, made from its file when it first runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from engine.families.parts.layers import StoredEmbedding, stored_layers
from engine.models.device import Device
from engine.models.loaded import TorchModel
from engine.models.manager import ModelManager, ModelRef, ModelSpec


def in_dtype(manager: ModelManager, ref: ModelRef, dtype: torch.dtype) -> ModelRef:
    name = str(dtype).removeprefix("torch.")

    def load(device: Device) -> TorchModel:
        module: Any = manager.fresh(ref).value
        recast(module, dtype)
        return TorchModel(module)

    return manager.add(ModelSpec(f"{ref.key}/in {name}", ref.role, f"{ref.title} ({name})", manager.nbytes(ref), load))


def recast(module: nn.Module, dtype: torch.dtype) -> None:
    """All numbers that a module computes with. Weights that are kept stored are unpacked to the type of what comes in,
    so they stay."""
    kept: set[int] = set()
    for _, layer in stored_layers(module):
        kept |= {id(tensor) for tensor in (layer.weight, layer.weight_scale) if tensor is not None}
        if isinstance(layer, StoredEmbedding):
            layer.compute = dtype
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point() and id(tensor) not in kept:
            tensor.data = tensor.data.to(dtype)
