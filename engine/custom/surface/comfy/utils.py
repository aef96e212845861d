"""`comfy.utils`: progress, resizing and reading of weights, as packs use them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.custom.host import context, host
from engine.custom.links import missing
from engine.custom.surface import offered
from engine.families.parts.resizing import resized
from engine.nodes.tiling import count, tiled
from engine.weights.load import open_header, read_tensors

PROGRESS_BAR_ENABLED = True


class ProgressBar:
    """Tells how far the node is that runs now; an interrupt is raised here as well."""

    def __init__(self, total: int, node_id: str | None = None) -> None:
        self.total = total
        self.current = 0
        self._call = context()

    def update_absolute(self, value: int, total: int | None = None, preview: Any = None) -> None:
        if total is not None:
            self.total = total
        self.current = min(value, self.total)
        if self._call is not None:
            if preview is not None:
                self._call.preview(preview[1])  # (format, picture, largest side)
            self._call.progress(self.current, self.total)

    def update(self, value: int) -> None:
        self.update_absolute(self.current + value)


def common_upscale(samples: Tensor, width: int, height: int, upscale_method: str, crop: str) -> Tensor:
    """(batch, channel, height, width) at another size."""
    return resized(samples, width, height, upscale_method, crop)


def lanczos(samples: Tensor, width: int, height: int) -> Tensor:
    return resized(samples, width, height, "lanczos", "disabled")


def bislerp(samples: Tensor, width: int, height: int) -> Tensor:
    return resized(samples, width, height, "bislerp", "disabled")


class FileTensors(dict[str, Tensor]):
    """The tensors of a file, which knows the file."""

    def __init__(self, tensors: dict[str, Tensor], path: Path) -> None:
        super().__init__(tensors)
        self.path = path


def load_torch_file(
    ckpt: str | os.PathLike[str], safe_load: bool = False, device: Any = None, return_metadata: bool = False
) -> Any:
    """The tensors of a weights file by name. Pickle files only where the machine's owner allows them."""
    header = open_header(Path(ckpt), allow_pickle=host().workspace.allow_pickle)
    tensors = read_tensors(header)
    if device is not None:
        tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    found = FileTensors(tensors, Path(ckpt))
    return (found, dict(header.metadata)) if return_metadata else found


def save_torch_file(sd: dict[str, Tensor], ckpt: str, metadata: dict[str, str] | None = None) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in sd.items()}, ckpt, metadata)


def calculate_parameters(sd: dict[str, Tensor], prefix: str = "") -> int:
    return sum(tensor.nelement() for name, tensor in sd.items() if name.startswith(prefix))


def state_dict_prefix_replace(
    state_dict: dict[str, Any], replace_prefix: dict[str, str], filter_keys: bool = False
) -> dict[str, Any]:
    """Names that start with an old prefix get the new one; with `filter_keys` only those are in what is returned."""
    out = {} if filter_keys else state_dict
    for old, new in replace_prefix.items():
        for name in [name for name in state_dict if name.startswith(old)]:
            out[new + name.removeprefix(old)] = state_dict.pop(name)
    return out


def repeat_to_batch_size(tensor: Tensor, batch_size: int, dim: int = 0) -> Tensor:
    """The batch, over and over, cut at `batch_size`."""
    have = tensor.shape[dim]
    if have == batch_size:
        return tensor
    return torch.cat([tensor] * -(-batch_size // have), dim=dim).narrow(dim, 0, batch_size)


def get_attr(obj: Any, attr: str) -> Any:
    for name in attr.split("."):
        obj = getattr(obj, name)
    return obj


def set_attr(obj: Any, attr: str, value: Any) -> Any:
    *path, last = attr.split(".")
    owner = get_attr(obj, ".".join(path)) if path else obj
    before = getattr(owner, last)
    setattr(owner, last, value)
    return before


def tiled_scale(
    samples: Tensor,
    function: Callable[[Tensor], Tensor],
    tile_x: int = 64,
    tile_y: int = 64,
    overlap: int = 8,
    upscale_amount: float = 4,
    out_channels: int = 3,
    output_device: Any = "cpu",
    pbar: ProgressBar | None = None,
) -> Tensor:
    """function over tiles of (batch, c, height, width) that fade into each other."""
    done = (lambda: pbar.update(1)) if pbar else (lambda: None)
    return tiled(samples, function, (tile_y, tile_x), overlap, upscale_amount, out_channels, done).to(output_device)


def get_tiled_scale_steps(width: int, height: int, tile_x: int, tile_y: int, overlap: int) -> int:
    """How often tiled_scale calls its function for one picture."""
    return count((1, 1, height, width), (tile_y, tile_x), overlap)


def __getattr__(name: str) -> Any:
    raise missing("comfy.utils", name, ", ".join(offered(sys.modules[__name__])))
