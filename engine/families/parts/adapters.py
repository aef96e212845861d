"""LoRAs and their kin acting beside a shared module for the duration of a call: nothing is merged for good.

A low-rank pair adds strength * scale * up(down(x)) to what its module gives. What is a function of the weight (LoHa,
LoKr, DoRA, OFT, differences ...) makes a weight of its own from the shared one when it begins to act, which stands in
the module while it acts; `made_bytes` is what those take. Several adapters stack in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from math import prod
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from engine.families.base import Adapter
from engine.families.parts.layers import Stored, dense_weight
from engine.weights.adapter_kinds import Change, LowRank, ModuleChange
from engine.weights.lora import LoraEntry

Hook = Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]
Acting = tuple[LoraEntry | ModuleChange, float]  # an entry and its strength


@contextmanager
def acting(module: nn.Module, adapters: Iterable[Adapter]) -> Iterator[nn.Module]:
    """`module` with the adapters beside it. All is as before at the end, also after an error. One thread at a time
    runs a shared module, so that nobody else meets them; twins of it never do.

    Raises KeyError when an adapter names a module that is not there: it was matched against another model.
    """
    with ExitStack() as stack:
        for name, entries in by_module(adapters).items():
            layer = _named(module, name)
            if _only_branches(layer, entries):
                for entry, strength in entries:
                    assert isinstance(entry, LoraEntry)
                    stack.callback(layer.register_forward_hook(_branch(entry, strength)).remove)
            else:
                _make(layer, entries, stack)
        yield module


def made_bytes(adapters: Iterable[Adapter], modules: Mapping[str, tuple[int, ...]], itemsize: int = 4) -> int:
    """Bytes of the weights that the adapters make for themselves while they act, for the ledger of the device."""
    made = {
        name
        for name, entries in by_module(adapters).items()
        if any(isinstance(entry, ModuleChange) for entry, _ in entries)
    }
    return sum(prod(modules[name]) * itemsize for name in made if name in modules)


def by_module(adapters: Iterable[Adapter]) -> dict[str, list[Acting]]:
    """What acts on each module, in its order."""
    found: dict[str, list[Acting]] = {}
    for adapter in adapters:
        if adapter.strength != 0.0:
            for name, entry in adapter.entries.items():
                found.setdefault(name, []).append((entry, adapter.strength))
    return found


def _only_branches(layer: nn.Module, entries: Iterable[Acting]) -> bool:
    return isinstance(layer, nn.Linear | nn.Conv2d) and all(isinstance(entry, LoraEntry) for entry, _ in entries)


def changed_weights(module: nn.Module, adapters: Iterable[Adapter]) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """(layer, "weight" or "bias", what the adapters make of it in float32), one after another; nothing is changed."""
    for name, entries in by_module(adapters).items():
        layer = _named(module, name)
        for parameter, value in changed(layer, entries):
            yield layer, parameter, value


def changed(layer: nn.Module, entries: Iterable[Acting]) -> Iterator[tuple[str, Tensor]]:
    """("weight" or "bias", what the entries make of it in float32) of one layer; nothing is changed."""
    changes = [(entry if isinstance(entry, ModuleChange) else _change(entry), strength) for entry, strength in entries]
    weight, bias = dense_weight(layer), layer._parameters.get("bias")
    yield "weight", _applied(weight, [(change, s) for entry, s in changes for change in entry.weight]).float()
    of_bias = [(change, s) for entry, s in changes for change in entry.bias]
    if of_bias:
        plain = weight.new_zeros(weight.shape[0]) if bias is None else bias
        yield "bias", _applied(plain, of_bias).float()


def _make(layer: nn.Module, entries: Iterable[Acting], stack: ExitStack) -> None:
    """Put a weight, and a bias where one changes, of the layer's own into it until the stack unwinds."""
    for name, made in changed(layer, entries):
        if name == "weight" and isinstance(layer, Stored):
            stack.callback(setattr, layer, "plain", layer.plain)
            layer.plain = made
            continue
        kept = layer._parameters.get(name)
        _stand_in(layer, name, made.to((layer.get_parameter("weight") if kept is None else kept).dtype), stack)


def _change(entry: LoraEntry) -> ModuleChange:
    return ModuleChange((LowRank(entry.down, entry.up, entry.mid, entry.scale),))


def _applied(weight: Tensor, changes: Iterable[tuple[Change, float]]) -> Tensor:
    for change, strength in changes:
        weight = change.applied(weight, strength)
    return weight


def _stand_in(layer: nn.Module, name: str, value: Tensor, stack: ExitStack) -> None:
    shared = layer._parameters[name]
    stack.callback(layer._parameters.__setitem__, name, shared)
    layer._parameters[name] = nn.Parameter(value, requires_grad=False)


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
