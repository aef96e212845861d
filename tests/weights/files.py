"""Writes weights files for tests, good ones and broken ones."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, zeros


def empty_tensors(path: Path, shapes: dict[str, tuple[int, ...]], metadata: dict[str, str] | None = None) -> Path:
    """A safetensors file of zeros."""
    tensors: dict[str, Tensor] = {name: zeros(shape) for name, shape in shapes.items()}
    save_file(tensors, path, metadata=metadata)
    return path


def with_header(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    """A file with any header, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path
