"""Models made of two others, weight by weight. The result is a model of the manager's like any other: made when it is
first used, on the host, from copies that nobody shares.

What acts on the two (LoRAs and their kin) goes into their copies first. Where both are the same file and differ in
plain additions only, nothing is made: the additions act at other strengths.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from engine.errors import GraphError
from engine.families.base import Adapter
from engine.families.parts.adapters import changed_weights
from engine.families.parts.layers import unpack_all
from engine.models.device import Device
from engine.models.loaded import Loaded, TorchModel
from engine.models.manager import ModelManager, ModelRef, ModelSpec
from engine.weights.adapter_kinds import Addition, ModuleChange

Shapes = Mapping[str, tuple[int, ...]]


class ModelsDiffer(GraphError):
    en = "{first} and {second} can't be merged: '{name}' is {shape} in one and {other} in the other."
    zh = "{first} 与 {second} 无法合并：“{name}”在一个中为 {shape}，在另一个中为 {other}。"


@dataclass(frozen=True)
class Mix:
    """weight = own * w1 + other * w2 with `shares(parameter's name)` = (own, other). `name` says all of it: it is part
    of the key."""

    name: str
    shares: Callable[[str], tuple[float, float]]


@dataclass(frozen=True)
class Half:
    """One of the two: a model, its layers, what acts on it."""

    ref: ModelRef
    modules: Shapes
    adapters: tuple[Adapter, ...] = ()


def blend(ratio: float) -> Mix:
    """`ratio` of the first, the rest of the second."""
    return Mix(f"blend {ratio}", lambda name: (ratio, 1.0 - ratio))


def difference(multiplier: float) -> Mix:
    return Mix(f"difference {multiplier}", lambda name: (multiplier, -multiplier))


def total() -> Mix:
    return Mix("sum", lambda name: (1.0, 1.0))


def merged(manager: ModelManager, first: Half, second: Half, mix: Mix) -> tuple[ModelRef, tuple[Adapter, ...]]:
    """The model and what acts on it. Raises ModelsDiffer."""
    check_alike(first, second)
    if (
        first.ref == second.ref
        and mix.name.startswith("blend ")
        and all(map(_adds, (*first.adapters, *second.adapters)))
    ):
        return first.ref, _stronger(first.adapters, second.adapters, *mix.shares(""))
    recipe = "\n".join([mix.name, *_recipe(first), *_recipe(second)])
    key = f"merge/{hashlib.sha256(recipe.encode()).hexdigest()[:24]}"

    def load(device: Device) -> Loaded:
        module = _copy(manager, first)
        with torch.no_grad():
            others = dict(_copy(manager, second).named_parameters())
            for name, weight in module.named_parameters():
                own, other = mix.shares(name)
                weight.copy_(weight.float() * own + others.pop(name).float() * other)
        return TorchModel(module)

    title = f"{first.ref.title} + {second.ref.title}"
    spec = ModelSpec(key, first.ref.role, title, manager.nbytes(first.ref), load, stored=manager.stored(first.ref))
    return manager.add(spec), ()


def _copy(manager: ModelManager, half: Half) -> nn.Module:
    module: Any = manager.fresh(half.ref).value
    unpack_all(module)
    with torch.no_grad():
        for layer, name, weight in changed_weights(module, half.adapters):
            layer._parameters[name] = nn.Parameter(weight.to(layer.get_parameter("weight").dtype), requires_grad=False)
    return module


def check_alike(first: Half, second: Half) -> None:
    """Raises ModelsDiffer where one has layers that the other does not have, or of another shape."""
    for name in {**first.modules, **second.modules}:
        shape, other = first.modules.get(name), second.modules.get(name)
        if shape != other:
            raise ModelsDiffer(first=first.ref.title, second=second.ref.title, name=name, shape=shape, other=other)


def _recipe(half: Half) -> Sequence[str]:
    return [half.ref.key, *(f"{a.key} {a.part} {a.strength}" for a in half.adapters)]


def _adds(adapter: Adapter) -> bool:
    """Whether its strength may be shared out: what it does is in proportion to it."""
    changes = (entry for entry in adapter.entries.values() if isinstance(entry, ModuleChange))
    return all(isinstance(change, Addition) for entry in changes for change in (*entry.weight, *entry.bias))


def _stronger(first: Sequence[Adapter], second: Sequence[Adapter], share: float, rest: float) -> tuple[Adapter, ...]:
    found: dict[tuple[str, str], Adapter] = {}
    for adapter, factor in (*((a, share) for a in first), *((a, rest) for a in second)):
        key = (adapter.key, adapter.part)
        before = found[key].strength if key in found else 0.0
        found[key] = replace(adapter, strength=before + adapter.strength * factor)
    return tuple(found.values())
