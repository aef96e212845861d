"""Writes safetensors files tensor by tensor, so that a model is never whole in memory a second time.

The header of such a file comes first and says where everything lies, so room is left for it and what is not needed is
filled with spaces, as the format allows: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import IO, Any

import torch
from torch import Tensor

from engine.weights.load import DTYPES

NAMES = {dtype: name for name, dtype in DTYPES.items()}
ROW = 160  # bytes of the header that one tensor takes beside its name, at most


def write_tensors(
    file: IO[bytes], names: Iterable[str], tensors: Iterable[tuple[str, Tensor]], metadata: Mapping[str, str]
) -> None:
    """`names` are those of `tensors`, in any order: room is left for them. Tensors are on the host."""
    described = _json({"__metadata__": dict(metadata)})
    room = len(described) + sum(len(_json(name)) + ROW for name in names)
    room += -room % 8
    file.write(room.to_bytes(8, "little") + b" " * room)
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    done = 0
    for name, tensor in tensors:
        data = tensor.contiguous().flatten().view(torch.uint8).numpy()
        shape = list(tensor.shape)
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": shape, "data_offsets": [done, done + len(data)]}
        file.write(data.data)
        done += len(data)
    text = _json(header)
    assert len(text) <= room, "more tensors than were named"
    file.seek(8)
    file.write(text)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
