"""A few numbers of a file, for what its header does not tell. Torch-free; for small tensors only."""

from __future__ import annotations

import numpy as np

from engine.weights.header import Header

SMALL = 1 << 16  # bytes
_KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def spread(header: Header, name: str) -> float:
    """The standard deviation of a small tensor's numbers. 0.0 where it is not there, large or of an unknown type."""
    info = header.tensors.get(name)
    if info is None or info.dtype not in _KINDS or not 0 < info.nbytes <= SMALL or header.format == "pickle":
        return 0.0
    with open(info.file, "rb") as file:
        file.seek(info.start)
        stored = np.frombuffer(file.read(info.nbytes), dtype=_KINDS[info.dtype])
    if info.dtype == "BF16":  # the upper half of a float32
        stored = (stored.astype(np.uint32) << 16).view(np.float32)
    return float(stored.astype(np.float64).std())
