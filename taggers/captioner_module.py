"""A captioner's module from its folder: every weight from the files, none missing, left over or of another shape.

It runs in the worker. Nothing is fetched and no code of the folder is run. Quantised modules are counted after loading:
the language model has to be in few bits, and what sees has to be whole.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import DeviceError, FileError
from engine.models.device import Device
from engine.models.loaded import Loaded, OpaqueModel, TorchModel
from engine.models.manager import ModelSpec
from taggers.folder import ModelFolder, first_line
from taggers.similarity import SimilarityTool
from taggers.text_files import LIBRARY_ERRORS
from taggers.tool import SampledTool

# transformers matches these from the start of a layer's full name; a bare "vision_tower" would match nothing
SKIPPED = ("lm_head", r".*vision_tower.*", r".*visual.*", r".*multi_modal_projector.*", r".*merger.*")
_SEES = ("vision_tower", "visual", "multi_modal_projector", "merger", "lm_head")
_LOADING = threading.Lock()  # from_pretrained switches things of the whole process while it runs


class WrongWeights(FileError):
    en = (
        "{name}: {count} weights {what}, such as '{example}'. The folder is incomplete, or its config.json is of "
        "another model."
    )
    zh = "{name}：{count} 个权重{what_zh}，例如“{example}”。文件夹不完整，或 config.json 属于其他模型。"


class NotLoadable(FileError):
    en = "{name} can't be loaded: {reason}"
    zh = "无法加载 {name}：{reason}"


class NoBitsandbytes(DeviceError):
    en = (
        "Quantising needs bitsandbytes, which can't be used here ({reason}). Install it with "
        "pip install 'easel-studio[eightbit]', or set quantise to none."
    )
    zh = (
        "量化需要 bitsandbytes，但无法使用（{reason}）。"
        "请执行 pip install 'easel-studio[eightbit]'，或将量化设为 none。"
    )


class WronglyQuantised(FileError):
    en = (
        "{name}: of the language model's {inside} layers {quantised} were quantised, and {outside} outside of it. "
        "Set quantise to none."
    )
    zh = "{name}：语言模型的 {inside} 层中有 {quantised} 层被量化，其外有 {outside} 层被量化。请将量化设为 none。"


class StoredQuantised(FileError):
    en = (
        "{name} is stored quantised ({method}), {why}. Get the folder with whole weights, which can be quantised here; "
        "or serve this one with vLLM or llama.cpp and use the endpoint tool."
    )
    zh = (
        "{name} 以量化形式（{method}）保存，{why_zh}。请下载完整权重的文件夹，可在此处量化；"
        "或用 vLLM、llama.cpp 提供服务并使用接口工具。"
    )


class WrongTypes(FileError):
    en = "{name}: '{example}' is stored as {dtype}, which is no weight of such a model. Was it quantised elsewhere?"
    zh = "{name}：“{example}”以 {dtype} 保存，不是此类模型的权重。该文件夹是否在别处量化过？"


@dataclass(frozen=True)
class Source:
    """What from_pretrained is handed: the class and config, and weights where they are not read from the folder."""

    module: type[Any]
    config: Any
    weights: Mapping[str, Tensor] | None = None


def captioner_spec(folder: ModelFolder, tool: SampledTool | SimilarityTool, source: Any) -> ModelSpec:
    """The captioner for the model manager. `source()` gives its Source; it is called when it is loaded."""
    stored, kept = folder.nbytes(), stored_quantised(folder, tool.quantise)
    size = {"none": 1.0, "int8": 0.6, "nf4": 0.4}[tool.quantise]
    return ModelSpec(
        key=f"captioner:{folder.path}:{folder.version()}:{tool.dtype}:{tool.quantise}",
        role="captioner",
        title=folder.name,
        nbytes=int(stored * size),
        load=lambda device: _load(folder, tool, source(), device),
        loads_there=kept or tool.quantise != "none",
    )


def dtype_for(tool: SampledTool | SimilarityTool, device: Device) -> torch.dtype:
    if tool.dtype != "auto":
        return getattr(torch, tool.dtype)
    if device.kind in ("cpu", "fake"):
        return torch.float32
    return torch.bfloat16 if device.kind == "cuda" and torch.cuda.is_bf16_supported() else torch.float16


def stored_quantised(folder: ModelFolder, wanted: str) -> bool:
    """Whether its weights lie in few bits already, as bitsandbytes has them. Raises StoredQuantised for other ways, and
    where they are to be quantised once more."""
    told = folder.config().get("quantization_config")
    if not isinstance(told, dict):
        return False
    method = str(told.get("quant_method") or "bitsandbytes")
    if method != "bitsandbytes":
        why, zh = "which is not read here", "此处无法读取"
        raise StoredQuantised(name=folder.name, method=method, why=why, why_zh=zh)
    if wanted != "none":
        why, zh = f"so that quantise has to be none, not {wanted}", f"因此量化须设为 none，而非 {wanted}"
        raise StoredQuantised(name=folder.name, method=method, why=why, why_zh=zh)
    return True


def _load(folder: ModelFolder, tool: SampledTool | SimilarityTool, source: Source, device: Device) -> Loaded:
    dtype = dtype_for(tool, device)
    more: dict[str, Any] = {"dtype": dtype}
    if tool.quantise != "none":
        more |= {"quantization_config": _quantisation(tool.quantise, dtype)}
    kept = stored_quantised(folder, tool.quantise)
    if kept:
        _bitsandbytes()
    if kept or tool.quantise != "none":
        more |= {"device_map": {"": device.torch}}
    module = read_module(folder, source, **more)
    if not kept and tool.quantise == "none":
        return TorchModel(module)
    if not kept:  # how many layers a publisher chose is the publisher's business
        check_quantised(folder.name, module)
    return OpaqueModel(module.eval().requires_grad_(False), module.get_memory_footprint())


def read_module(folder: ModelFolder, source: Source, **more: Any) -> Any:
    """The module with all its weights. Raises WrongWeights, NotLoadable, and what headers of broken files raise."""
    if not stored_quantised(folder, "none"):
        _refuse_integers(folder)
    from transformers.utils import logging

    with _LOADING:
        logging.disable_progress_bar()  # the job tells its own progress
        try:
            module, found = source.module.from_pretrained(
                None if source.weights is not None else str(folder.path),
                config=source.config,
                state_dict=source.weights,
                local_files_only=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # or they raise a text; refused below
                output_loading_info=True,
                trust_remote_code=False,
                **more,
            )
        except LIBRARY_ERRORS as error:
            raise NotLoadable(name=folder.name, reason=first_line(error)) from error
    refuse(folder.name, found)
    return module


def refuse(name: str, found: Mapping[str, Any]) -> None:
    """Raises WrongWeights where loading left something random, or something of the files unused."""
    words = {
        "missing_keys": ("are missing", "缺失"),
        "mismatched_keys": ("have another shape", "形状不符"),
        "unexpected_keys": ("are left over", "多余"),
    }
    for key, (what, zh) in words.items():
        wrong = sorted(str(one[0] if isinstance(one, tuple) else one) for one in found.get(key) or ())
        if wrong:
            raise WrongWeights(name=name, count=len(wrong), what=what, what_zh=zh, example=wrong[0])
    if found.get("error_msgs"):
        raise NotLoadable(name=name, reason=str(next(iter(found["error_msgs"]))).splitlines()[0])


def count_quantised(module: nn.Module) -> tuple[int, int, int]:
    """(linear layers of the language model, those of them in few bits, those elsewhere in few bits)."""
    inside = quantised = outside = 0
    for name, layer in module.named_modules():
        few = type(layer).__name__ in ("Linear4bit", "Linear8bitLt")
        if not (few or isinstance(layer, nn.Linear)):
            continue
        if any(word in name for word in _SEES):
            outside += few
        else:
            inside, quantised = inside + 1, quantised + few
    return inside, quantised, outside


def check_quantised(name: str, module: nn.Module) -> None:
    inside, quantised, outside = count_quantised(module)
    if quantised != inside or outside or not inside:
        raise WronglyQuantised(name=name, inside=inside, quantised=quantised, outside=outside)


def _refuse_integers(folder: ModelFolder) -> None:
    for name, tensor in folder.tensors().items():
        # old files list the numbers of their places
        if tensor.dtype[0] in "IU" and not name.endswith("position_ids"):
            raise WrongTypes(name=folder.name, example=name, dtype=tensor.dtype)


def _bitsandbytes() -> None:
    try:
        import bitsandbytes  # noqa: F401  # pyright: ignore[reportMissingImports]
    except Exception as error:  # it looks for libraries of the driver when it is imported
        raise NoBitsandbytes(reason=first_line(error)) from error


def _quantisation(how: str, dtype: torch.dtype) -> Any:
    _bitsandbytes()
    from transformers import BitsAndBytesConfig

    skipped: Iterable[str] = list(SKIPPED)
    if how == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=skipped,
    )
