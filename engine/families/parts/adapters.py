"""LoRAs acting beside a shared module for the duration of a call: nothing is merged, nothing of the module changes.

Each low-rank pair adds strength * scale * up(down(x)) to what its module gives. Several stack in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from engine.families.base import Adapter
from engine.weights.lora import LoraEntry

Hook = Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]


@contextmanager
def acting(module: nn.Module, adapters: Iterable[Adapter]) -> Iterator[nn.Module]:
    """`module` with the adapters beside it. The hooks are gone at the end, also after an error. One thread at a time
    runs a shared module, so that nobody else meets them.

    Raises KeyError when an adapter names a module that is not there: it was matched against another model.
    """
    handles: list[RemovableHandle] = []
    try:
        for adapter in adapters:
            if adapter.strength == 0.0:
                continue
            for name, entry in adapter.entries.items():
                handles.append(_named(module, name).register_forward_hook(_branch(entry, adapter.strength)))
        yield module
    finally:
        for handle in handles:
            handle.remove()


def _branch(entry: LoraEntry, strength: float) -> Hook:
    placed: dict[Any, tuple[Tensor, Tensor, Tensor | None]] = {}
    factor = strength * entry.scale

    def add(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        x: Tensor = inputs[0]
        if _lies_like(entry.down, x):  # also a running training's own tensors: always as they are now
            down, up, mid = entry.down, entry.up, entry.mid
        else:
            if (x.device, x.dtype) not in placed:
                mid = None if entry.mid is None else _like(entry.mid, x)
                placed[x.device, x.dtype] = _like(entry.down, x), _like(entry.up, x), mid
            down, up, mid = placed[x.device, x.dtype]
        return output + _delta(layer, x, down, up, mid) * factor

    return add


def _delta(layer: nn.Module, x: Tensor, down: Tensor, up: Tensor, mid: Tensor | None) -> Tensor:
    if not isinstance(layer, nn.Conv2d):
        return F.linear(F.linear(x, down.flatten(1)), up.flatten(1))
    geometry: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
    if mid is not None:  # LoCon over Tucker: 1x1 down, the module's kernel between, 1x1 up
        x = F.conv2d(F.conv2d(x, _as_conv(down)), mid, **geometry)
    else:
        x = F.conv2d(x, _as_conv(down), **geometry)
    return F.conv2d(x, _as_conv(up))


def _as_conv(weight: Tensor) -> Tensor:
    return weight if weight.ndim == 4 else weight[:, :, None, None]


def _lies_like(tensor: Tensor, x: Tensor) -> bool:
    return tensor.device == x.device and tensor.dtype == x.dtype


def _like(tensor: Tensor, x: Tensor) -> Tensor:
    return tensor.to(device=x.device, dtype=x.dtype)


def _named(module: nn.Module, name: str) -> nn.Module:
    try:
        return module.get_submodule(name)
    except AttributeError as error:
        raise KeyError(name) from error
