"""Which layers of a file are quantised and how, told from its header and its small marks. Torch-free.

What is read: float8 (e4m3fn, e5m2) plain as kohya and others cast it; with a scale a layer, as `scaled_fp8` files
(`layer.scale_weight`) and as ComfyUI's `comfy_quant` files (`layer.weight_scale`; a mark of JSON for each layer or
`_quantization_metadata` for the file); GGUF. A scale multiplies the weight. Scales of inputs belong to arithmetic in
float8, which is not done here. Everything else is refused by its name.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from engine.errors import FileError
from engine.weights.header import Header, TensorInfo

FLOAT8 = {"F8_E4M3", "F8_E5M2"}
GGUF_TYPES = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS")
SCALE = ".weight_scale"  # what the scale of a layer is called once `settled`
LONGEST_MARK = 1 << 16

_FORMATS = {"float8_e4m3fn", "float8_e5m2"}
_DROPPED = re.compile(r"(^|\.)(scaled_fp8|scale_input|input_scale|comfy_quant)$")
_FOREIGN = (
    (re.compile(r"\.quant_state\.bitsandbytes__(\w+)$"), "bitsandbytes {0}"),
    (re.compile(r"\.(absmax|quant_map)$"), "bitsandbytes"),
    (re.compile(r"\.(qweight|wscales|proj_down|smooth_factor)$"), "nunchaku SVDQuant or AWQ"),
    (re.compile(r"\.weight_scale_2$"), "nvfp4"),
    (re.compile(r"\.SCB$"), "bitsandbytes int8"),
)


class UnknownQuantisation(FileError):
    en = (
        "{path}: '{name}' is quantised as {kind}, which can't be read here. Get the model in fp16, bf16, fp8 "
        "(plain or scaled) or GGUF ({gguf})."
    )
    zh = (
        "{path}：“{name}”以 {kind} 方式量化，此处无法读取。请使用 fp16、bf16、fp8（普通或带缩放）"
        "或 GGUF（{gguf}）版本的模型。"
    )


def settled(header: Header) -> Header:
    """The header with every layer's scale called `.weight_scale`, and without marks and scales of inputs.

    Raises UnknownQuantisation.
    """
    _check_metadata(header)
    tensors: dict[str, TensorInfo] = {}
    for name, info in header.tensors.items():
        _check(header, name, info)
        if _DROPPED.search(name):
            continue
        if name.endswith(".scale_weight"):
            info = replace(info, source=info.source or name)
            name = name.removesuffix(".scale_weight") + SCALE
        tensors[name] = info
    return replace(header, tensors=tensors)


def is_quantised(info: TensorInfo) -> bool:
    """Whether the tensor is kept as it is and unpacked when its layer runs."""
    return info.dtype in FLOAT8 or info.dtype in GGUF_TYPES


def _check(header: Header, name: str, info: TensorInfo) -> None:
    for pattern, kind in _FOREIGN:
        found = pattern.search(name)
        if found:
            raise _unknown(header, name, kind.format(*found.groups()))
    if name.endswith(".comfy_quant"):
        _check_format(header, name, _mark(header, info))
    elif header.format == "gguf" and info.dtype not in (*GGUF_TYPES, "F32", "F16", "BF16", "F64", "I32", "I8"):
        raise _unknown(header, name, f"GGUF {info.dtype}")
    elif name.endswith(".weight") and info.dtype in ("I8", "U8", "F4", "F6_E2M3", "F6_E3M2"):
        raise _unknown(header, name, {"I8": "int8"}.get(info.dtype, info.dtype))


def _check_metadata(header: Header) -> None:
    text = header.metadata.get("_quantization_metadata")
    if text is None:
        return
    try:
        layers = json.loads(text)["layers"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unknown(header, "_quantization_metadata", f"metadata that can't be read ({error})") from error
    for name, settings in layers:
        _check_format(header, name, settings)


def _check_format(header: Header, name: str, settings: Any) -> None:
    kind = settings.get("format") if isinstance(settings, dict) else settings
    if kind not in _FORMATS:
        raise _unknown(header, name, str(kind))
    if settings.get("convrot"):
        raise _unknown(header, name, f"{kind} with convrot")


def _mark(header: Header, info: TensorInfo) -> Any:
    """The JSON of a layer's mark."""
    if header.format == "pickle" or info.nbytes > LONGEST_MARK:
        return "a mark that can't be read"
    with open(info.file, "rb") as file:
        file.seek(info.start)
        data = file.read(info.nbytes)
    try:
        return json.loads(data)
    except ValueError:
        return repr(data[:40])


def _unknown(header: Header, name: str, kind: str) -> UnknownQuantisation:
    return UnknownQuantisation(path=header.path, name=name, kind=kind, gguf=", ".join(GGUF_TYPES))
