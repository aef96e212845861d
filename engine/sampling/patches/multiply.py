"""What attention layers give, multiplied: queries, keys, values, the layer's answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from engine.families.parts.patch import Acting, Now
from engine.sampling.patches.unet import removing

TEMPORAL = ("time_stack.", "temporal_transformer_blocks.")  # layers between the frames of a video


def multiplied(factors: Mapping[str, float], temporal: bool | None = None) -> Acting:
    """factors: {end of a module's name: what it gives is multiplied by that}. temporal: only layers between frames, or
    only others."""

    @contextmanager
    def acting(module: nn.Module, now: Now) -> Iterator[None]:
        handles: list[RemovableHandle] = []
        for name, layer in module.named_modules():
            factor = next((f for end, f in factors.items() if name.endswith(f".{end}")), 1.0)
            if factor != 1.0 and temporal in (None, any(part in name for part in TEMPORAL)):
                handles.append(layer.register_forward_hook(_times(factor)))
        with removing(*handles):
            yield

    return acting


def _times(factor: float) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    return lambda layer, args, output: output * factor
