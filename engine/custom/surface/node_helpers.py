"""`node_helpers`: small things that packs do with conditioning and pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def conditioning_set_values(
    conditioning: Sequence[Sequence[Any]], values: Mapping[str, Any] | None = None, append: bool = False
) -> list[list[Any]]:
    """Every prompt with these values; with `append`, lists are added to what is there."""

    def told(entry: Mapping[str, Any], name: str, value: Any) -> Any:
        before = entry.get(name)
        return [*before, *value] if append and before is not None else value

    return [
        [tensor, {**entry, **{name: told(entry, name, value) for name, value in (values or {}).items()}}]
        for tensor, entry in conditioning
    ]


def pillow(fn: Callable[..., Any], arg: Any) -> Any:
    """fn(arg), also for pictures that end too early."""
    from PIL import ImageFile

    try:
        return fn(arg)
    except (OSError, SyntaxError):
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
        try:
            return fn(arg)
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def hasher() -> Any:
    return hashlib.sha256


def image_alpha_fix(destination: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    """Two pictures with the same number of channels: an alpha of one alone is left out, or added."""
    if destination.shape[-1] < source.shape[-1]:
        source = source[..., : destination.shape[-1]]
    elif destination.shape[-1] > source.shape[-1]:
        source = torch.nn.functional.pad(source, (0, 1), value=1.0)
    return destination, source


def string_to_torch_dtype(string: str) -> torch.dtype | None:
    names = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    return names.get(string)
