"""A device that is not the CPU, with real numbers, on any machine: an operation on tensors of both fails, as on a GPU.

    manager = ModelManager(placing_away(monkeypatch))
    with strict():
        ...

Tensors there say that they are on "meta", which is nobody's real device; what they hold is kept beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from engine.models.device import Device, FakeDevice
from engine.models.loaded import TorchModel

AWAY = torch.device("meta")
aten = torch.ops.aten
# What may have its tensors on both: copies, and places in a tensor that are told by one on the host.
CROSSING = {
    aten._to_copy.default,
    aten.copy_.default,
    aten.index.Tensor,
    aten.index_put_.default,
    aten.index_put.default,
}


class TwoDevices(RuntimeError):
    """What CUDA says with "Expected all tensors to be on the same device"."""


class Elsewhere(Tensor):
    """`inner` is on the CPU and has the numbers."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Elsewhere:
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=AWAY,
        )  # fmt: skip
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ):
        return _run(func, args, dict(kwargs or {}))

    def tolist(self) -> Any:
        return self.inner.tolist()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Elsewhere({self.inner!r})"


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ):
        return _run(func, args, dict(kwargs or {}))


class _Constants(TorchFunctionMode):
    """torch.tensor and its like make theirs below the dispatcher."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ):
        kwargs = dict(kwargs or {})
        told = kwargs.get("device")
        if func in (torch.tensor, torch.as_tensor) and told is not None and torch.device(told) == AWAY:
            made = func(*args, **{**kwargs, "device": "cpu"})
            return made if isinstance(made, Elsewhere) else Elsewhere(made)
        if func is Tensor.new_tensor and isinstance(args[0], Elsewhere) and told is None:
            return Elsewhere(torch.tensor(*args[1:], dtype=kwargs.get("dtype", args[0].dtype)))
        return func(*args, **kwargs)


def _run(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    tensors: list[Tensor] = []
    _each((args, tuple(kwargs.values())), tensors.append)
    there = [one for one in tensors if isinstance(one, Elsewhere)]
    here = [one for one in tensors if not isinstance(one, Elsewhere) and one.ndim > 0]
    if there and here and func not in CROSSING:
        shapes = [
            f"{tuple(one.shape)} on {'the device' if isinstance(one, Elsewhere) else 'the CPU'}" for one in tensors
        ]
        raise TwoDevices(f"{func}: {', '.join(shapes)}")
    told = kwargs.get("device")
    to_away = torch.device(told) == AWAY if told is not None else _stays(func, args, there)
    if told is not None:
        kwargs["device"] = torch.device("cpu")
    wrappers = {id(one.inner): one for one in there}

    def inner(tensor: Tensor) -> Tensor:
        return tensor.inner if isinstance(tensor, Elsewhere) else tensor

    def outer(tensor: Tensor) -> Tensor:
        known = wrappers.get(id(tensor))
        return known if known is not None else Elsewhere(tensor) if to_away else tensor

    made = func(*_each(tuple(args), inner), **{name: _each(value, inner) for name, value in kwargs.items()})
    return _each(made, outer)


def _each(value: Any, work: Callable[[Tensor], Any]) -> Any:
    """The value with each of its tensors for what `work` makes of it."""
    if isinstance(value, Tensor):
        return work(value)
    if type(value) in (list, tuple):
        return type(value)(_each(one, work) for one in value)
    return value


def _stays(func: Any, args: Sequence[Any], there: Sequence[Any]) -> bool:
    """Of what may cross: whether the first tensor, whose device counts, is there."""
    return isinstance(args[0], Elsewhere) if func in CROSSING else bool(there)


class AwayDevice(FakeDevice):
    kind: Any

    def __init__(self, kind: str) -> None:
        super().__init__(1 << 33)
        self.torch, self.kind = AWAY, kind

    def put(self, tensor: Tensor) -> Tensor:
        return Elsewhere(tensor.clone())

    def drop(self, tensor: Tensor) -> None: ...


def placing_away(patch: pytest.MonkeyPatch, kind: str = "fake") -> Device:
    """The device, of that kind: of "cuda", models run in half types. While the patch lasts, models are put on it by
    changing their parameters for others, since their data can't be of another class."""
    usual = TorchModel.place

    def place(model: TorchModel, device: Device) -> None:
        if not isinstance(device, AwayDevice):
            return usual(model, device)
        module: nn.Module = model.value
        for part in module.modules():
            for name, parameter in part._parameters.items():
                if parameter is not None and not isinstance(parameter, Elsewhere):
                    part._parameters[name] = nn.Parameter(device.put(parameter.data), requires_grad=False)
            for name, buffer in part._buffers.items():
                if buffer is not None and not isinstance(buffer, Elsewhere):
                    part._buffers[name] = device.put(buffer)

    patch.setattr(TorchModel, "place", place)
    patch.setattr(TorchModel, "take_off", lambda model, device: None)
    return AwayDevice(kind)


@contextmanager
def strict() -> Iterator[None]:
    """What is made on the device within the block has numbers, and may not meet the CPU's."""
    with _Constants(), _Dispatch():
        yield
