"""A device as the model manager sees it: how many bytes it has, and how tensors get on and off it.

CPU, CUDA and MPS differ in few lines. FakeDevice counts bytes on the CPU, poisons what was taken off, and refuses
more than its capacity, so that the whole layer is tested without a GPU.
"""

from __future__ import annotations

import os
from typing import Literal, Protocol

import torch

from engine import host_memory
from engine.errors import DeviceError

GIB = 1 << 30


class UnknownDevice(DeviceError):
    en = "There is no device '{name}'. This machine has: {known}. Use --device auto, cpu or one of these."
    zh = "没有设备“{name}”。本机可用：{known}。请使用 --device auto、cpu 或其中之一。"


class Device(Protocol):
    name: str
    torch: torch.device
    is_host: bool  # weights lie where they run: taking a model off means dropping it
    safety: int  # bytes never planned with

    @property
    def kind(self) -> Literal["cpu", "cuda", "mps", "fake"]: ...

    def total(self) -> int:
        """Bytes the device has in all."""
        ...

    def free(self) -> int:
        """Bytes nobody uses now, what torch caches for itself included."""
        ...

    def allocated(self, resident: int) -> int:
        """Bytes we hold there, of which `resident` are weights: what free() leaves out of our own."""
        ...

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy on the device (the tensor itself where it lies there already)."""
        ...

    def drop(self, tensor: torch.Tensor) -> None:
        """`tensor` came from put() and is not used any more."""
        ...

    def trim(self) -> None:
        """Give cached memory back to the driver."""
        ...


class CpuDevice:
    kind: Literal["cpu"] = "cpu"
    is_host = True
    safety = GIB // 2

    def __init__(self) -> None:
        self.name = "CPU"
        self.torch = torch.device("cpu")

    def total(self) -> int:
        return host_memory.total()

    def free(self) -> int:
        return host_memory.available()

    def allocated(self, resident: int) -> int:
        return resident

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor

    def drop(self, tensor: torch.Tensor) -> None:
        pass

    def trim(self) -> None:
        pass


class CudaDevice:
    kind: Literal["cuda"] = "cuda"
    is_host = False

    def __init__(self, index: int = 0) -> None:
        self.torch = torch.device("cuda", index)
        self.name = torch.cuda.get_device_name(index)
        self.safety = (8 if os.name == "nt" else 5) * GIB // 10

    def total(self) -> int:
        return torch.cuda.get_device_properties(self.torch).total_memory

    def free(self) -> int:
        driver, _ = torch.cuda.mem_get_info(self.torch)
        return driver + torch.cuda.memory_reserved(self.torch) - torch.cuda.memory_allocated(self.torch)

    def allocated(self, resident: int) -> int:
        return torch.cuda.memory_allocated(self.torch)

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.torch)

    def drop(self, tensor: torch.Tensor) -> None:
        pass

    def trim(self) -> None:
        torch.cuda.empty_cache()


class MpsDevice:
    """Apple's GPU shares the memory of the CPU; its driver says how much of it torch may take."""

    kind: Literal["mps"] = "mps"
    is_host = False
    safety = GIB

    def __init__(self) -> None:
        self.name = "Apple GPU"
        self.torch = torch.device("mps")

    def total(self) -> int:
        return torch.mps.recommended_max_memory()

    def free(self) -> int:
        return max(0, self.total() - torch.mps.driver_allocated_memory())

    def allocated(self, resident: int) -> int:
        return torch.mps.current_allocated_memory()

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.torch)

    def drop(self, tensor: torch.Tensor) -> None:
        pass

    def trim(self) -> None:
        torch.mps.empty_cache()


class FakeDevice:
    """`capacity` bytes of pretended device memory. Dropped tensors turn to NaN, so that a late reader is found."""

    kind: Literal["fake"] = "fake"
    is_host = False
    safety = 0

    def __init__(self, capacity: int) -> None:
        self.name = "fake"
        self.torch = torch.device("cpu")
        self.capacity = capacity
        self.used = 0
        self.copies = 0

    def total(self) -> int:
        return self.capacity

    def free(self) -> int:
        return self.capacity - self.used

    def allocated(self, resident: int) -> int:
        return self.used

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.used + tensor.nbytes > self.capacity:
            raise MemoryError(f"fake device: {self.used} + {tensor.nbytes} > {self.capacity}")
        self.used += tensor.nbytes
        self.copies += 1
        return tensor.clone()

    def drop(self, tensor: torch.Tensor) -> None:
        self.used -= tensor.nbytes
        if tensor.is_floating_point():
            tensor.fill_(float("nan"))

    def trim(self) -> None:
        pass


def open_device(name: str = "auto") -> Device:
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps`. Raises UnknownDevice with what there is."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    mps = torch.backends.mps.is_available()
    if name == "auto":
        return CudaDevice() if count else MpsDevice() if mps else CpuDevice()
    if name == "cpu":
        return CpuDevice()
    if name == "mps" and mps:
        return MpsDevice()
    kind, _, index = name.partition(":")
    if kind == "cuda" and (index or "0").isdigit() and int(index or 0) < count:
        return CudaDevice(int(index or 0))
    known = ["cpu", *(f"cuda:{i}" for i in range(count)), *(["mps"] if mps else [])]
    raise UnknownDevice(name=name, known=", ".join(known))
