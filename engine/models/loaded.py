"""What a model is once it is read: something that can be put on a device and taken off again.

TorchModel holds a frozen nn.Module whose host weights are the truth, so taking it off copies nothing back.
OpaqueModel holds anything else that has a size and can only be made and dropped, such as an onnxruntime session.
"""

from __future__ import annotations

import copy
from typing import Any, Protocol

import torch
from torch import nn

from engine.models.device import Device


class Loaded(Protocol):
    value: Any

    @property
    def movable(self) -> bool:
        """Whether its weights stay on the host when it is taken off; else it has to be dropped."""
        ...

    @property
    def nbytes(self) -> int: ...

    def place(self, device: Device) -> None: ...

    def take_off(self, device: Device) -> None: ...

    def twin(self) -> Any: ...


class TorchModel:
    """A frozen module in eval mode. `value` is shared by everybody: nobody moves, changes or trains it."""

    movable = True

    def __init__(self, module: nn.Module) -> None:
        self.value = module.eval().requires_grad_(False)
        self._tensors = _unique_tensors(module)
        self._host = [t.data for t in self._tensors]
        self._placed = False

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in self._host)

    def place(self, device: Device) -> None:
        if self._placed:
            return
        done: list[torch.Tensor] = []
        try:
            for host in self._host:
                done.append(device.put(host))
        except BaseException:
            for tensor in done:
                device.drop(tensor)
            raise
        for tensor, data in zip(self._tensors, done, strict=True):
            tensor.data = data
        self._placed = True

    def take_off(self, device: Device) -> None:
        if not self._placed:
            return
        for tensor, host in zip(self._tensors, self._host, strict=True):
            on_device, tensor.data = tensor.data, host
            device.drop(on_device)
        self._placed = False

    def twin(self) -> nn.Module:
        """A module with a structure of its own over the very same tensors: it may get adapters, hooks, train mode and
        gradient checkpointing without anybody else seeing it. It costs no weights."""
        memo: dict[int, Any] = {id(t): t for t in self._tensors}
        return copy.deepcopy(self.value, memo)


class OpaqueModel:
    """`value` with a known size that lives on the device from the moment it is made, until nobody holds it."""

    movable = False

    def __init__(self, value: Any, nbytes: int) -> None:
        self.value = value
        self.nbytes = nbytes

    def place(self, device: Device) -> None:
        pass

    def take_off(self, device: Device) -> None:
        pass

    def twin(self) -> Any:
        raise TypeError("only torch modules have twins")


def _unique_tensors(module: nn.Module) -> list[torch.Tensor]:
    """Parameters and buffers, each once although tied weights are listed twice."""
    seen: dict[int, torch.Tensor] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        seen.setdefault(id(tensor), tensor)
    return list(seen.values())
