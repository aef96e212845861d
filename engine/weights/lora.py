"""LoRA files: every naming of the field, read into {module name: low-rank pair}, and the names for writing our own.

A file names a module in one of several dialects (kohya's `lora_unet_…` over diffusers' or LDM's names, diffusers'
`unet.…`, its older attention processors, peft's `base_model.model.…`, ComfyUI's `diffusion_model.…`) and a matrix by a
suffix. A family gives a table {dialect name: module name}; what the table does not have is reported, and a file of
which nothing fits is refused. Torch is needed only to read the matrices.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from engine.errors import FileError
from engine.weights.header import Header
from engine.weights.keymaps import KeyMap

if TYPE_CHECKING:
    from torch import Tensor

Matrix = Literal["down", "up", "mid", "alpha", "dora", "other"]
Shape = tuple[int, ...]

_SUFFIXES: tuple[tuple[str, Matrix], ...] = (
    (".lora_down.weight", "down"), (".lora_up.weight", "up"), (".lora_mid.weight", "mid"), (".alpha", "alpha"),
    (".lora_A.weight", "down"), (".lora_B.weight", "up"), (".lora_A.default.weight", "down"),
    (".lora_B.default.weight", "up"), (".lora_A", "down"), (".lora_B", "up"),
    (".lora_linear_layer.down.weight", "down"), (".lora_linear_layer.up.weight", "up"),
    (".lora.down.weight", "down"), (".lora.up.weight", "up"),
    ("_lora.down.weight", "down"), ("_lora.up.weight", "up"),
    (".dora_scale", "dora"), (".lora_magnitude_vector.weight", "dora"), (".lora_magnitude_vector", "dora"),
    (".lora_magnitude_vector.default.weight", "dora"),
)  # fmt: skip
_OTHER = re.compile(r"\.(hada_w[12]_[ab]|hada_t[12]|lokr_w[12](_[ab])?|lokr_t2|oft_blocks|diff|diff_b|w_norm|b_norm|"
                    r"a1\.weight|a2\.weight|b1\.weight|b2\.weight|set_weight|reshape_weight)$")  # fmt: skip

_TEXT = re.compile(r"lora_te\d?_|text_encoders?(_\d)?\.|(base_model\.model\.)?text_model\.")


class NoLora(FileError):
    en = "{path} is not a LoRA: none of its {count} tensors is named like one ('{name}')."
    zh = "{path} 不是 LoRA：其 {count} 个张量中没有一个符合 LoRA 的命名（“{name}”）。"


class LoraOfOtherModel(FileError):
    en = "{path} does not fit this model: {reason}. The LoRA is for {family}; use a checkpoint of that kind."
    zh = "{path} 与此模型不匹配：{reason}。该 LoRA 适用于{family}，请使用对应类型的检查点。"


class UnsupportedAdapter(FileError):
    en = "{path} holds {kind} weights ('{name}'), which can't be used here yet. Plain LoRA and LoCon files can."
    zh = "{path} 含有 {kind} 权重（“{name}”），目前尚不支持。可使用普通的 LoRA 与 LoCon 文件。"


@dataclass(frozen=True, eq=False)
class LoraEntry:
    """One low-rank pair: delta = scale * up @ (mid @) down. down (rank, in[, k, k]), up (out, rank[, 1, 1])."""

    down: Tensor
    up: Tensor
    mid: Tensor | None = None
    alpha: float | None = None  # None means the rank

    @property
    def scale(self) -> float:
        rank = self.down.shape[0]
        return 1.0 if self.alpha is None else self.alpha / rank


@dataclass(frozen=True, eq=False)
class LoraFile:
    """What of a file fits a model: {part: {module name: entry}}, and the names that fit nothing."""

    entries: Mapping[str, Mapping[str, LoraEntry]]
    unmatched: tuple[str, ...] = field(default=())


def split_key(key: str) -> tuple[str, Matrix] | None:
    """A tensor's name as (module in some dialect, which matrix); None for what is no part of an adapter."""
    for suffix, matrix in _SUFFIXES:
        if key.endswith(suffix):
            return key[: -len(suffix)], matrix
    other = _OTHER.search(key)
    return (key[: other.start()], "other") if other else None


def is_lora(header: Header) -> bool:
    return any((found := split_key(name)) and found[1] != "alpha" for name in header.tensors)


def without_text(header: Header) -> Header:
    """The header without the text encoder's part of a LoRA: for a model that is loaded alone."""
    return replace(header, tensors={name: info for name, info in header.tensors.items() if not _TEXT.match(name)})


def unet_names(modules: Iterable[str], keymap: KeyMap) -> dict[str, str]:
    """{name in any dialect: module} of a UNet2DConditionModel."""
    table: dict[str, str] = {}
    for module in modules:
        flat, ldm = module.replace(".", "_"), keymap.to_ldm(module)
        names = [f"unet.{module}", f"base_model.model.{module}", f"base_model.model.unet.{module}", module]
        names += [f"lora_unet_{flat}", f"lycoris_{flat}", f"unet.{_as_processor(module)}", _as_processor(module)]
        if ldm is not None:
            names += [f"lora_unet_{ldm.replace('.', '_')}", f"diffusion_model.{ldm}", f"model.diffusion_model.{ldm}"]
        table |= dict.fromkeys(names, module)
    return table


def clip_names(modules: Iterable[str], keymap: KeyMap, *, number: str = "", comfy: str = "clip_l") -> dict[str, str]:
    """{name in any dialect: module} of a CLIP text encoder; `number` is "1" or "2" where a family has two."""
    table: dict[str, str] = {}
    for module in modules:
        name = keymap.to_ldm(module)
        if name is None:
            continue
        flat = name.replace(".", "_")
        names = [f"lora_te{number}_{flat}", f"text_encoder{'_2' if number == '2' else ''}.{name}"]
        names += [f"text_encoders.{comfy}.transformer.{name}", f"base_model.model.{name}", name]
        if not number:
            names.append(f"lora_te1_{flat}")
        table |= dict.fromkeys(names, module)
    return table


def kohya_name(prefix: str, module: str) -> str:
    """`lora_unet` + `down_blocks.0.attentions.0.proj_in` -> what kohya and ComfyUI call it, without suffix."""
    return f"{prefix}_{module.replace('.', '_')}"


def match(
    header: Header, tables: Mapping[str, Mapping[str, str]], shapes: Mapping[str, Mapping[str, Shape]], family: str
) -> tuple[dict[str, dict[str, dict[Matrix, str]]], tuple[str, ...]]:
    """Which tensors are which matrix of which module, by name and shape alone: ({part: {module: {matrix: tensor}}},
    names that fit nothing). `family` is who the file seems to be for, in words.

    Raises NoLora, LoraOfOtherModel, UnsupportedAdapter.
    """
    found: dict[str, dict[str, dict[Matrix, str]]] = {part: {} for part in tables}
    unmatched: list[str] = []
    for key in header.tensors:
        base, matrix = split_key(key) or ("", "other")
        part = next((part for part, table in tables.items() if base in table), None)
        if part is None:
            unmatched.append(key)
        elif matrix in ("other", "dora"):
            raise UnsupportedAdapter(path=header.path, kind=_kind(key), name=key)
        else:
            found[part].setdefault(tables[part][base], {})[matrix] = key
    if not is_lora(header):
        raise NoLora(path=header.path, count=len(header.tensors), name=next(iter(header.tensors), ""))
    if not any(found.values()):
        raise LoraOfOtherModel(path=header.path, reason=f"it has no module called '{unmatched[0]}'", family=family)
    for part, modules in found.items():
        for module, matrices in modules.items():
            _check(header, module, matrices, shapes[part][module], family)
    return found, tuple(unmatched)


def read_lora(
    header: Header, tables: Mapping[str, Mapping[str, str]], shapes: Mapping[str, Mapping[str, Shape]], family: str
) -> LoraFile:
    """The whole file, its matrices in float32 on the host. Raises what `match` does."""
    import torch

    from engine.weights.load import read_tensors

    found, unmatched = match(header, tables, shapes, family)
    names = [name for modules in found.values() for matrices in modules.values() for name in matrices.values()]
    tensors = read_tensors(header, names, torch.float32)

    def entry(matrices: Mapping[Matrix, str]) -> LoraEntry:
        mid = tensors[matrices["mid"]] if "mid" in matrices else None
        alpha = float(tensors[matrices["alpha"]]) if "alpha" in matrices else None
        return LoraEntry(tensors[matrices["down"]], tensors[matrices["up"]], mid, alpha)

    entries = {part: {m: entry(matrices) for m, matrices in modules.items()} for part, modules in found.items()}
    return LoraFile(entries, unmatched)


def _check(header: Header, module: str, matrices: Mapping[Matrix, str], shape: Shape, family: str) -> None:
    if "down" not in matrices or "up" not in matrices:
        present = next(iter(matrices.values()))
        raise LoraOfOtherModel(path=header.path, reason=f"'{present}' has no other half", family=family)
    down, up = header.shape(matrices["down"]), header.shape(matrices["up"])
    if len(down) < 2 or len(up) < 2 or down[1] != shape[1] or up[0] != shape[0] or up[1] != down[0]:
        reason = f"'{module}' is {shape[0]} x {shape[1]}, but '{matrices['down']}' and its partner are {down} and {up}"
        raise LoraOfOtherModel(path=header.path, reason=reason, family=family)


def _as_processor(module: str) -> str:
    """diffusers' names before 0.18: attn1.to_q -> attn1.processor.to_q, to_out.0 -> processor.to_out; suffix _lora."""
    head, _, last = module.rpartition(".to_")
    return f"{head}.processor.to_{last.removesuffix('.0')}" if head else module


def _kind(key: str) -> str:
    marks: dict[str, Callable[[str], bool]] = {
        "DoRA": lambda k: "dora" in k or "magnitude" in k,
        "LoHa": lambda k: "hada" in k,
        "LoKr": lambda k: "lokr" in k,
        "OFT": lambda k: "oft" in k,
    }
    return next((name for name, test in marks.items() if test(key)), "adapter")


def title_of(path: Path, metadata: Mapping[str, str]) -> str:
    return metadata.get("modelspec.title") or metadata.get("ss_output_name") or path.stem
