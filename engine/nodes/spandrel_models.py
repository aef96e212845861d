"""Networks that make pictures larger or mend them, of any architecture that spandrel knows by a file's tensors.

spandrel imports all of its architectures at once, and two of them need torchvision, which is bound to one build of
torch. Where it is missing, something stands in for it while spandrel is imported; only those two can't be used then.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn

from engine.errors import FileError, GraphError
from engine.models.device import Device
from engine.models.loaded import TorchModel
from engine.models.manager import ModelManager, ModelRef, ModelSpec
from engine.weights.load import open_header, read_tensors
from engine.weights.lora import title_of

_MISSING = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
_importing = threading.Lock()


class NoSpandrel(GraphError):
    en = (
        "Upscale models need the package spandrel. Install it beside Easel: "
        'pip install --no-deps "spandrel>=0.4.2,<0.5" einops'
    )
    zh = '放大模型需要 spandrel 包。请在 Easel 的环境中安装：pip install --no-deps "spandrel>=0.4.2,<0.5" einops'


class NeedsTorchvision(GraphError):
    en = (
        "{name} is of the architecture {architecture}, which needs torchvision. Install the one that belongs to your "
        "torch (see https://pytorch.org/get-started), or use another upscale model."
    )
    zh = (
        "{name} 的架构为 {architecture}，需要 torchvision。请安装与您的 torch 对应的版本"
        "（见 https://pytorch.org/get-started），或使用其他放大模型。"
    )


class NoUpscaler(FileError):
    en = "{path} is not an upscale model: {reason}."
    zh = "{path} 不是放大模型：{reason}。"


@dataclass(frozen=True)
class UpscaleModel:
    """An UPSCALE_MODEL link."""

    ref: ModelRef
    title: str


class Upscaler(nn.Module):
    """A network as spandrel describes it: (1, 3, height, width) in 0..1 -> (1, 3, scale * height, scale * width)."""

    def __init__(self, descriptor: Any, name: str) -> None:
        super().__init__()
        self.network = cast(nn.Module, descriptor.model)
        self.scale = int(descriptor.scale)
        self._descriptor = descriptor
        self._name = name

    def forward(self, pixels: Tensor) -> Tensor:
        """Raises NeedsTorchvision."""
        try:
            return self._descriptor(pixels)
        except _NotThere as error:
            raise NeedsTorchvision(name=self._name, architecture=self._descriptor.architecture.name) from error


def load_upscaler(manager: ModelManager, path: Path, *, allow_pickle: bool = False) -> UpscaleModel:
    """Registers it with the manager; only its header is read. Raises NoSpandrel."""
    header = open_header(path, allow_pickle=allow_pickle)
    spandrel = import_spandrel()
    title = title_of(path, header.metadata)

    def load(device: Device) -> TorchModel:
        tensors = read_tensors(header, dtype=torch.float32)
        plain = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
        try:
            descriptor = spandrel.ModelLoader().load_from_state_dict(plain)
        except spandrel.UnsupportedModelError as error:
            raise NoUpscaler(path=path, reason="no architecture that spandrel knows has such tensors") from error
        except (ValueError, RuntimeError, KeyError, TypeError) as error:  # what architectures say of odd files
            raise NoUpscaler(path=path, reason=(str(error) or type(error).__name__).splitlines()[0][:200]) from error
        if not hasattr(descriptor, "purpose") or descriptor.purpose == "Inpainting":
            raise NoUpscaler(path=path, reason=f"{descriptor.architecture.name} works on more than a picture")
        if descriptor.input_channels != 3 or descriptor.output_channels != 3:
            channels = f"{descriptor.input_channels} to {descriptor.output_channels}"
            raise NoUpscaler(path=path, reason=f"it turns {channels} channels, not 3 to 3")
        return TorchModel(Upscaler(descriptor.float(), title))

    nbytes = sum(info.nbytes for info in header.tensors.values())
    ref = manager.add(ModelSpec(f"{header.digest}/upscaler", "upscaler", title, nbytes, load))
    return UpscaleModel(ref, title)


def import_spandrel() -> ModuleType:
    """Raises NoSpandrel."""
    with _importing, _stand_ins():
        try:
            import spandrel
        except ModuleNotFoundError as error:
            raise NoSpandrel from error
    return spandrel


class _NotThere(Exception):
    """Something of torchvision was used that is not there."""


class _Absent:
    """Any name of an absent module: it may be imported and named, not called."""

    def __getattr__(self, name: str) -> _Absent:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **options: Any) -> Any:
        raise _NotThere


class _AbsentModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absent()


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Absent modules are there for the while, so that nobody else takes torchvision for installed."""
    if "spandrel" in sys.modules or find_spec("torchvision") is not None:
        yield
        return
    sys.modules.update({name: _AbsentModule(name) for name in _MISSING})
    try:
        yield
    finally:
        for name in _MISSING:
            del sys.modules[name]
