"""GGUF files: their header as a Header, as city96's converter and llama.cpp write them. Torch-free.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md: magic, version, counts, metadata, one record a tensor, then
the data. Dimensions are written fastest first. The type of a quantised tensor keeps its own name ("Q4_K"): its rows are
blocks of bytes (families/parts/layers.py unpacks them when a layer runs).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

from engine.errors import FileError, NotFound
from engine.weights.header import Header, TensorInfo, Truncated

MAGIC = b"GGUF"
LONGEST = 1 << 27  # bytes of one string, and items of one list: a broken length must not take all memory
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_ALIGNMENT = "general.alignment"
_ORIGINAL_SHAPE = "comfy.gguf.orig_shape."


class NotGguf(FileError):
    en = "{path} is not a GGUF file that can be read here: {reason}."
    zh = "{path} 不是此处可读取的 GGUF 文件：{reason}。"


def is_gguf(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(4) == MAGIC
    except OSError:
        return False


def read_gguf_header(path: Path) -> Header:
    """Raises NotFound, NotGguf, Truncated."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            metadata, records, data = _read(file, path)
            file.seek(0)
            digest = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns} ".encode() + file.read(data))
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        reason = error.strerror or ""
        raise NotFound(what="file", what_zh="文件", name=path, remedy=reason, remedy_zh=reason) from error
    tensors = {name: _info(path, name, record, data, metadata) for name, record in records.items()}
    need = max((t.end for t in tensors.values()), default=data)
    if status.st_size < need:
        raise Truncated(path=path, size=status.st_size, need=need)
    words = {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
    return Header(Path(path), tensors, words, status.st_size, digest.hexdigest()[:24], "gguf")


Record = tuple[tuple[int, ...], int, int]  # shape, type, offset in the data


def _read(file: BinaryIO, path: Path) -> tuple[dict[str, Any], dict[str, Record], int]:
    try:
        if file.read(4) != MAGIC:
            raise NotGguf(path=path, reason="it does not begin with GGUF")
        version, tensor_count, pair_count = _unpack(file, "IQQ")
        if version not in (2, 3):
            raise NotGguf(path=path, reason=f"its version is {version}, 2 and 3 are known")
        metadata: dict[str, Any] = {}
        for _ in range(pair_count):
            name = _string(file)
            metadata[name] = _value(file, _unpack(file, "I")[0])
        records: dict[str, Record] = {}
        for _ in range(tensor_count):
            name = _string(file)
            (dimensions,) = _unpack(file, "I")
            if dimensions > 8:
                raise NotGguf(path=path, reason=f"the tensor '{name[:80]}' has {dimensions} dimensions")
            shape = _unpack(file, "Q" * dimensions)
            kind, offset = _unpack(file, "IQ")
            records[name] = (shape[::-1], kind, offset)
    except (struct.error, UnicodeDecodeError, ValueError, KeyError, OverflowError, RecursionError) as error:
        raise NotGguf(path=path, reason=f"its header is broken ({type(error).__name__}: {error})") from error
    alignment = int(metadata.get(_ALIGNMENT, 32)) or 32
    # lists of a tokenizer are long and of no use here
    kept = {k: v for k, v in metadata.items() if not (isinstance(v, list) and k.startswith("tokenizer."))}
    return kept, records, -(-file.tell() // alignment) * alignment


def _info(path: Path, name: str, record: Record, data: int, metadata: dict[str, Any]) -> TensorInfo:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    shape, kind, offset = record
    try:
        type = GGMLQuantizationType(kind)
        block, size = GGML_QUANT_SIZES[type]
    except (ValueError, KeyError) as error:
        raise NotGguf(path=path, reason=f"the tensor '{name[:80]}' has the unknown type {kind}") from error
    count = math.prod(shape)
    if count % block or (shape and shape[-1] % block):
        raise NotGguf(path=path, reason=f"the tensor '{name[:80]}' does not consist of whole blocks")
    if _ORIGINAL_SHAPE + name in metadata:
        # of more than four axes, or with rows that are no whole blocks: city96's converter cuts such into rows of 256
        shape = tuple(int(n) for n in metadata[_ORIGINAL_SHAPE + name])
        if math.prod(shape) != count:
            raise NotGguf(path=path, reason=f"the tensor '{name[:80]}' has two different sizes")
    start = data + offset
    return TensorInfo(type.name, shape, start, start + count // block * size, path)


def row_shape(kind: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """(rows, bytes of a row) of a quantised tensor in memory; one row of all where its own are no whole blocks."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    rows = shape[0] if math.prod(shape[1:]) % block == 0 else 1
    return rows, math.prod(shape) // rows // block * size


def _unpack(file: BinaryIO, format: str) -> tuple[Any, ...]:
    format = "<" + format
    return struct.unpack(format, file.read(struct.calcsize(format)))


def _string(file: BinaryIO) -> str:
    (length,) = _unpack(file, "Q")
    if length > LONGEST:
        raise ValueError(f"a string of {length} bytes")
    text = file.read(length)
    if len(text) < length:
        raise ValueError("a string that ends with the file")
    return text.decode("utf-8")


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        return _unpack(file, _NUMBERS[kind])[0]
    item, count = _unpack(file, "IQ")
    if count > LONGEST:
        raise ValueError(f"a list of {count} items")
    if item in _NUMBERS:
        return list(_unpack(file, _NUMBERS[item] * count))
    return [_value(file, item) for _ in range(count)]
