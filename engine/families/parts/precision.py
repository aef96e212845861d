"""In which type the parts of a model run on a device."""

from __future__ import annotations

import torch

from engine.families.base import WeightDtype
from engine.models.device import Device
from engine.models.manager import Role
from engine.weights.load import DTYPES


def compute_dtype(device: Device, role: Role, stored: str = "F16", *, wide: bool = False) -> torch.dtype:
    """Float32 on the CPU, whose half types are slow or inexact. On a GPU half: bfloat16 where the file has it (it may
    not fit into float16) or the model is `wide` (T5 and Flux overflow), else float16; an autoencoder overflows in
    float16 and runs in bfloat16, on a Mac float32."""
    if device.kind in ("cpu", "fake"):
        return torch.float32
    if wide:
        return torch.bfloat16
    if role == "vae":
        return torch.float32 if device.kind == "mps" else torch.bfloat16
    return torch.bfloat16 if DTYPES.get(stored) == torch.bfloat16 and device.kind == "cuda" else torch.float16


def storage_dtype(weight_dtype: WeightDtype) -> torch.dtype | None:
    """The type that weights are kept in, None where nothing says so."""
    if weight_dtype == "default":
        return None
    return torch.float8_e5m2 if weight_dtype == "fp8_e5m2" else torch.float8_e4m3fn
