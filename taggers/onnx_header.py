"""The inputs and outputs of an ONNX file, read from its bytes without onnxruntime: names, types and shapes.

Only the few fields of ONNX's protobuf that say this are looked at; weights are skipped by their length.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from engine.errors import FileError

_TYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64"}


class NotOnnx(FileError):
    en = "{path} is not an ONNX model: {reason}. Download it again."
    zh = "{path} 不是 ONNX 模型：{reason}。请重新下载。"


@dataclass(frozen=True)
class TensorInfo:
    """A dimension is a number, or a name or empty text where it is open."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class OnnxHeader:
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


def read_onnx_header(path: Path) -> OnnxHeader:
    """Raises NotOnnx for anything else, cut-off files included."""
    inputs: list[TensorInfo] = []
    outputs: list[TensorInfo] = []
    initializers: set[str] = set()
    size = path.stat().st_size
    with open(path, "rb") as file:
        try:
            for number, end in _fields(file, size):
                if number != 7:  # ModelProto.graph
                    file.seek(end)
                    continue
                for inner, stop in _fields(file, end):
                    if inner == 11:
                        inputs.append(_value_info(file.read(stop - file.tell())))
                    elif inner == 12:
                        outputs.append(_value_info(file.read(stop - file.tell())))
                    elif inner == 5:
                        initializers.add(_initializer_name(file, stop))
                    file.seek(stop)
        except (ValueError, UnicodeDecodeError, IndexError) as error:
            raise NotOnnx(path=path.name, reason=error) from error
    # files of old exporters list their weights among the inputs
    inputs = [one for one in inputs if one.name not in initializers]
    if not inputs or not outputs:
        raise NotOnnx(path=path.name, reason="it has no graph with inputs and outputs")
    return OnnxHeader(tuple(inputs), tuple(outputs))


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """(field number, where it ends) of every length-delimited field up to `end`; the file stands at its content."""
    while file.tell() < end:
        tag = _varint(file)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            _varint(file)
        elif wire in (1, 5):
            file.seek(8 if wire == 1 else 4, 1)
        elif wire == 2:
            length = _varint(file)
            stop = file.tell() + length
            if stop > end:
                raise ValueError("the file is cut off or no protobuf")
            yield number, stop
            file.seek(stop)
        else:
            raise ValueError("no protobuf")
        if number == 0:
            raise ValueError("no protobuf")


def _varint(file: BinaryIO) -> int:
    value = shift = 0
    while True:
        byte = file.read(1)
        if not byte or shift > 63:
            raise ValueError("the file is cut off or no protobuf")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
        shift += 7


def _initializer_name(file: BinaryIO, end: int) -> str:
    for number, stop in _fields(file, end):
        if number == 8:  # TensorProto.name
            return file.read(stop - file.tell()).decode()
    return ""


def _value_info(data: bytes) -> TensorInfo:
    fields = dict(_messages(data))
    type_proto = dict(_messages(_bytes(fields.get(2, b""))))
    tensor = dict(_messages(_bytes(type_proto.get(1, b""))))
    shape = tuple(_dimension(_bytes(d)) for n, d in _messages(_bytes(tensor.get(2, b""))) if n == 1)
    kind = tensor.get(1, 0)
    return TensorInfo(
        _bytes(fields.get(1, b"")).decode(), _TYPES.get(kind if isinstance(kind, int) else 0, "other"), shape
    )


def _dimension(data: bytes) -> int | str:
    fields = dict(_messages(data))
    value = fields.get(1)
    return value if isinstance(value, int) else _bytes(fields.get(2, b"")).decode()


def _messages(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a small message."""
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while at < len(data):
        tag = number()
        if tag & 7 == 0:
            yield tag >> 3, number()
        elif tag & 7 == 2:
            length = number()
            yield tag >> 3, data[at : at + length]
            at += length
        else:
            at += 8 if tag & 7 == 1 else 4


def _bytes(value: int | bytes) -> bytes:
    return value if isinstance(value, bytes) else b""
