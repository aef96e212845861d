"""Reads tensors from weights files, cast while they are read, so that the stored copy is never whole in memory.

Tensors are read in pieces through one small buffer a thread (several files' worth of bytes may be cast at once), each
straight into memory of its own: nothing aliases the file, which may be replaced or deleted afterwards.
Pickle files are read by torch's `weights_only` loader and only where the caller says that the owner allows them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from engine.errors import FileError
from engine.weights.gguf import row_shape
from engine.weights.header import Header, PickleFile, TensorInfo, Truncated, read_folder, read_header

PIECE = 4 << 20  # bytes read at once: large enough for the disk, small enough for the processor's cache
DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64, "BOOL": torch.bool,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class UnsupportedType(FileError):
    en = "{path}: the tensor '{name}' is stored as {dtype}, which can't be read here."
    zh = "{path}：张量“{name}”以 {dtype} 格式存储，此处无法读取。"


class BadPickle(FileError):
    en = "{path} can't be read: it holds more than plain tensors, or is broken ({reason})."
    zh = "无法读取 {path}：文件包含张量以外的内容，或已损坏（{reason}）。"


def open_header(path: Path, *, allow_pickle: bool = False) -> Header:
    """The header of a file or of a diffusers folder; with `allow_pickle` also of a pickle file."""
    if path.is_dir():
        return read_folder(path)
    try:
        return read_header(path)
    except PickleFile:
        if not allow_pickle:
            raise
        return _pickle_header(path)


DtypeOf = Callable[[str], torch.dtype | None]


def read_tensors(
    header: Header,
    names: Iterable[str] | None = None,
    dtype: torch.dtype | DtypeOf | None = None,
    threads: int | None = None,
) -> dict[str, Tensor]:
    """The named tensors (all when None), floating ones cast to `dtype` (one for all, or for a name; None: as stored),
    integers and bool as they are stored. Quantised tensors of GGUF come as bytes (rows, bytes of a row).

    Raises UnsupportedType, Truncated when the file became shorter since its header was read.
    """
    wanted = {name: header.tensors[name] for name in (header.tensors if names is None else names)}
    to: DtypeOf = dtype if callable(dtype) else lambda name: dtype
    if header.format == "pickle":
        stored = _unpickle(header.path)
        return {name: _cast(_part(stored[info.source or name], info), to(name)) for name, info in wanted.items()}
    out = {name: _empty(header, name, info, to(name)) for name, info in wanted.items()}
    shares = _shares(wanted, threads or min(4, os.cpu_count() or 1))
    if len(shares) <= 1:
        _read_share(wanted, out)
    else:
        with ThreadPoolExecutor(len(shares)) as pool:
            list(pool.map(lambda share: _read_share(share, out), shares))
    return out


def _read_share(share: Mapping[str, TensorInfo], out: Mapping[str, Tensor]) -> None:
    """Read tensors in the order in which they lie in their files."""
    buffer = memoryview(bytearray(PIECE))
    scratch = torch.frombuffer(buffer, dtype=torch.uint8)
    by_file: dict[Path, list[tuple[str, TensorInfo]]] = {}
    for name, info in sorted(share.items(), key=lambda item: item[1].start):
        by_file.setdefault(info.file, []).append((name, info))
    for path, tensors in by_file.items():
        with open(path, "rb", buffering=0) as file:
            for name, info in tensors:
                stored, target = DTYPES.get(info.dtype, torch.uint8), out[name].view(-1)
                first = 0
                for at, end in info.byte_runs:
                    file.seek(at)
                    while at < end:
                        size = min(PIECE, end - at)
                        _fill(file, buffer[:size], path, info.end)
                        piece = scratch[:size].view(stored)
                        target[first : first + piece.numel()].copy_(piece)
                        first += piece.numel()
                        at += size


def _fill(file: Any, view: memoryview, path: Path, need: int) -> None:
    done = 0
    while done < len(view):
        count = file.readinto(view[done:])
        if not count:
            raise Truncated(path=path, size=path.stat().st_size, need=need)
        done += count


def _shares(wanted: Mapping[str, TensorInfo], count: int) -> list[dict[str, TensorInfo]]:
    """`wanted` cut into `count` parts of about equal bytes, each of neighbours in the file."""
    total = sum(info.nbytes for info in wanted.values())
    if total < 8 * PIECE:
        return [dict(wanted)]
    shares: list[dict[str, TensorInfo]] = [{} for _ in range(count)]
    done = 0
    for name, info in sorted(wanted.items(), key=lambda item: (str(item[1].file), item[1].start)):
        shares[min(count - 1, done * count // total)][name] = info
        done += info.nbytes
    return [share for share in shares if share]


def _empty(header: Header, name: str, info: TensorInfo, dtype: torch.dtype | None) -> Tensor:
    stored = DTYPES.get(info.dtype)
    if stored is None and header.format == "gguf":
        return torch.empty(row_shape(info.dtype, info.shape), dtype=torch.uint8)
    if stored is None:
        raise UnsupportedType(path=header.path, name=name, dtype=info.dtype)
    return torch.empty(info.shape, dtype=dtype if dtype and stored.is_floating_point else stored)


def _part(tensor: Tensor, info: TensorInfo) -> Tensor:
    """What `info` is of a tensor that is in memory; a copy."""
    flat = tensor.contiguous().view(-1).view(torch.uint8)
    return torch.cat([flat[start:end] for start, end in info.byte_runs]).view(tensor.dtype).view(info.shape)


def _cast(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor


def _pickle_header(path: Path) -> Header:
    status = path.stat()
    tensors = {
        name: TensorInfo(_NAMES.get(t.dtype, str(t.dtype)), tuple(t.shape), 0, t.nbytes, path)
        for name, t in _unpickle(path).items()
    }
    names = " ".join(f"{name} {info.dtype} {info.shape}" for name, info in sorted(tensors.items()))
    digest = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns} {names}".encode()).hexdigest()[:24]
    return Header(path, tensors, {}, status.st_size, digest, "pickle")


def _unpickle(path: Path) -> dict[str, Tensor]:
    """Tensors by dotted name, however the file nests them. An outer "state_dict" is not part of the names."""
    try:
        with torch.serialization.safe_globals(_harmless()):
            data = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise BadPickle(
            path=path, reason=str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        ) from error
    if isinstance(data, dict) and isinstance(data.get("state_dict"), dict):
        data = data["state_dict"]
    return dict(_flat(data, ""))


class _Inert:
    """Stands for what trainers left beside the tensors of their checkpoints: the state of a callback, say."""


def _harmless() -> list[Any]:
    """What the first checkpoints of Stable Diffusion hold beside tensors: numbers of numpy, and a callback of Lightning
    under the key of its class. None of it does anything when it is made."""
    import codecs

    import numpy as np
    from numpy._core import multiarray

    callback = [(_Inert, f"pytorch_lightning.callbacks.{place}ModelCheckpoint") for place in ("model_checkpoint.", "")]
    number = [(multiarray.scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    types = [np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType]
    return [*callback, *number, *types, (codecs.encode, "_codecs.encode")]


def _flat(data: Any, prefix: str) -> Iterable[tuple[str, Tensor]]:
    if isinstance(data, Tensor):
        yield prefix, data
    elif isinstance(data, Mapping):
        for name, value in data.items():
            yield from _flat(value, f"{prefix}.{name}" if prefix else str(name))
