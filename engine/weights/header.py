"""Reads what a weights file says about itself: names, types and shapes of its tensors, and its metadata. Torch-free.

A .safetensors file opens with 8 bytes (length of the header, little endian), the header (JSON) and then the data:
https://github.com/huggingface/safetensors#format. Nothing after the header is read here; it is only checked that the
file is as long as the header says. Pickle files (.ckpt, .pt, .pth, .bin) have no header; see load.py.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.errors import FileError, NotFound

LONGEST_HEADER = 100_000_000  # bytes, as the safetensors library has it
ITEM_SIZE: dict[str, float] = {
    "F64": 8, "I64": 8, "U64": 8, "C64": 8,
    "F32": 4, "I32": 4, "U32": 4,
    "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1, "I8": 1, "U8": 1, "BOOL": 1,
    "F6_E2M3": 0.75, "F6_E3M2": 0.75, "F4": 0.5,
}  # fmt: skip


class EmptyFile(FileError):
    en = "{path} is empty (0 bytes). The download probably failed: get the file again."
    zh = "{path} 是空文件（0 字节）。可能是下载失败，请重新获取该文件。"


class Truncated(FileError):
    en = "{path} is incomplete: it has {size} bytes, but {need} are expected. Get the file again."
    zh = "{path} 不完整：文件只有 {size} 字节，应有 {need} 字节。请重新获取该文件。"


class NotSafetensors(FileError):
    en = "{path} is not a safetensors file: {reason}."
    zh = "{path} 不是 safetensors 文件：{reason}。"


class PickleFile(FileError):
    en = (
        "{path} is a pickle file. Such files can run code when they are read. Get the .safetensors version of the "
        "model, or, if you trust its source, write allow_pickle = true into studio.toml and start again."
    )
    zh = (
        "{path} 是 pickle 文件，读取时可能执行代码。请使用该模型的 .safetensors 版本；"
        "如果您信任其来源，可在 studio.toml 中写入 allow_pickle = true 并重新启动。"
    )


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: safetensors' name of its type ("F16", for GGUF "Q4_K"), shape, and where its bytes are in which file.

    What is cut out of a tensor of the file (fused.py) names it in `source`, and where it is not one run of bytes, its
    `runs` in their order.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int = 0
    end: int = 0
    file: Path = Path()
    runs: tuple[tuple[int, int], ...] = ()
    source: str = ""

    @property
    def nbytes(self) -> int:
        return sum(end - start for start, end in self.byte_runs)

    @property
    def byte_runs(self) -> tuple[tuple[int, int], ...]:
        return self.runs or ((self.start, self.end),)


@dataclass(frozen=True)
class Header:
    """What a file says about itself. `digest` tells versions of a file apart: it covers the header, the file's size
    and the time it was last written, not the weights themselves, which nobody wants to hash at every start."""

    path: Path
    tensors: Mapping[str, TensorInfo] = field(repr=False)
    metadata: Mapping[str, str] = field(repr=False)
    size: int
    digest: str
    format: Literal["safetensors", "folder", "pickle", "gguf"] = "safetensors"

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def has_prefix(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self.tensors)

    def under(self, prefix: str) -> dict[str, TensorInfo]:
        """The tensors whose names begin with `prefix`, by the rest of their names."""
        return {name[len(prefix) :]: info for name, info in self.tensors.items() if name.startswith(prefix)}


def read_header(path: Path) -> Header:
    """The header of a safetensors or GGUF file.

    Raises NotGguf, NotFound, EmptyFile, Truncated, PickleFile or NotSafetensors (FileError).
    """
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            first = file.read(8)
            if first[:4] == b"GGUF":
                from engine.weights.gguf import read_gguf_header

                return read_gguf_header(Path(path))
            length = _header_length(path, first, status.st_size)
            text = file.read(length)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise NotFound(
            what="file", what_zh="文件", name=path, remedy=error.strerror or "", remedy_zh="请检查路径和权限。"
        ) from error
    if len(text) < length:
        raise Truncated(path=path, size=status.st_size, need=f"{8 + length:,}+")
    raw, metadata = _parse(path, text)
    tensors = {name: _tensor_info(path, name, value, 8 + length) for name, value in raw.items()}
    need = max((t.end for t in tensors.values()), default=8 + length)
    if status.st_size < need:
        raise Truncated(path=path, size=status.st_size, need=need)
    digest = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns} ".encode() + text).hexdigest()[:24]
    return Header(Path(path), tensors, metadata, status.st_size, digest)


_WEIGHTS = ("diffusion_pytorch_model", "model")
_SHARD = re.compile(r"-\d+-of-\d+(?=\.)")  # before a variant's name or behind it
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "text_encoder_3", "transformer")


def read_folder(path: Path) -> Header:
    """A folder in diffusers' layout as one header: names begin with their part ("unet.conv_in.weight"), and each part's
    config.json is the metadata `easel.<part>`. Raises NotFound where no part has weights, and what read_header does."""
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, str] = {}
    digest, size = hashlib.sha256(), 0
    for part in PARTS:
        for file in _weights_of(path / part):
            header = read_header(file)
            tensors |= {f"{part}.{name}": info for name, info in header.tensors.items()}
            digest.update(header.digest.encode())
            size += header.size
    for part in (*PARTS, "scheduler"):
        for config in sorted((path / part).glob("*config.json")):
            metadata[f"easel.{part}"] = config.read_text(encoding="utf-8")
            digest.update(metadata[f"easel.{part}"].encode())
    if not tensors:
        raise NotFound(
            what="weights in folder",
            what_zh="文件夹中的权重",
            name=path,
            remedy=f"Expected .safetensors files in {', '.join(PARTS)}.",
            remedy_zh=f"应在 {', '.join(PARTS)} 中有 .safetensors 文件。",
        )
    return Header(path, tensors, metadata, size, digest.hexdigest()[:24], "folder")


def is_pickle(first: bytes) -> bool:
    """By the first bytes of a file: torch's zip, torch's old tar, or a bare pickle (protocol 2 to 5)."""
    return first[:4] == b"PK\x03\x04" or first[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def _weights_of(folder: Path) -> list[Path]:
    """The weights of one part: its plain file or that file's shards; those of a variant ("fp16") where there is no
    other. What lies beside them (a LoRA, say) is none of it."""
    files: dict[str, list[Path]] = {}
    for file in sorted(folder.glob("*.safetensors")) if folder.is_dir() else ():
        files.setdefault(_SHARD.sub("", file.name), []).append(file)
    names = sorted(files, key=lambda name: (name.count("."), name.split(".")[0] not in _WEIGHTS, name))
    if not names:
        return []
    return [file for file in files[names[0]] if file.name == names[0]] or files[names[0]]


def _header_length(path: Path, first: bytes, size: int) -> int:
    if size == 0:
        raise EmptyFile(path=path)
    if is_pickle(first):
        raise PickleFile(path=path)
    if size < 8:
        raise Truncated(path=path, size=size, need="8+")
    length = int.from_bytes(first, "little")
    if length > LONGEST_HEADER:
        readable = all(32 <= b < 127 or b in b"\t\r\n" or b >= 0xC2 for b in first)
        text, number = f"it begins with the text {first.decode('utf-8', 'replace')!r}", f"a header of {length:,} bytes"
        what = text if readable else number
        raise NotSafetensors(path=path, reason=what)
    if 8 + length > size:
        raise Truncated(path=path, size=size, need=f"{8 + length:,}+")
    return length


def _parse(path: Path, text: bytes) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotSafetensors(path=path, reason=f"its header is not JSON ({error})") from error
    if not isinstance(raw, dict):
        raise NotSafetensors(path=path, reason="its header is not a JSON object")
    metadata = raw.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict):
        raise NotSafetensors(path=path, reason="its metadata is not a JSON object")
    return raw, {str(k): str(v) for k, v in metadata.items()}


def _tensor_info(path: Path, name: str, value: Any, data: int) -> TensorInfo:
    """Checked, because a wrong offset would make us read another tensor's bytes, or none."""
    try:
        dtype, shape, (start, end) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
        good = all(type(n) is int and n >= 0 for n in (*shape, start, end)) and start <= end
        if good and dtype in ITEM_SIZE and math.prod(shape) * ITEM_SIZE[dtype] == end - start:
            return TensorInfo(dtype, shape, data + start, data + end, path)
    except (KeyError, TypeError, ValueError):
        pass
    raise NotSafetensors(path=path, reason=f"its header describes the tensor '{name[:80]}' wrongly")
