"""LoRA files: every naming of the field, read into {module name: low-rank pair}, and the names for writing our own.

A file names a module in one of several dialects (kohya's `lora_unet_…` over diffusers' or LDM's names, diffusers'
`unet.…`, its older attention processors, peft's `base_model.model.…`, ComfyUI's `diffusion_model.…`) and a matrix by a
suffix. A family gives a table {dialect name: module name}; what the table does not have is reported, and a file of
which nothing fits is refused. Torch is needed only to read the matrices.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import FileError
from engine.weights.adapter_keys import Matrix, is_adapter_matrix, kinds_of, missing_half, split_key
from engine.weights.adapter_shapes import fits, fits_beside, in_words
from engine.weights.header import Header
from engine.weights.keymaps import KeyMap

if TYPE_CHECKING:
    from torch import Tensor

    from engine.weights.adapter_kinds import ModuleChange

Shape = tuple[int, ...]

_TEXT = re.compile(r"lora_te\d?_|text_encoders?(_\d)?\.|(base_model\.model\.)?text_model\.")


class NoLora(FileError):
    en = "{path} is not a LoRA: none of its {count} tensors is named like one ('{name}')."
    zh = "{path} 不是 LoRA：其 {count} 个张量中没有一个符合 LoRA 的命名（“{name}”）。"


class LoraOfOtherModel(FileError):
    en = (
        "{path} does not fit this model: {reason}. The LoRA is for {family}, the model is {model}. Use a LoRA for "
        "{model}, or a checkpoint that this one is for."
    )
    zh = (
        "{path} 与此模型不匹配：{reason}。该 LoRA 适用于 {family}，而模型是 {model}。"
        "请使用适用于 {model} 的 LoRA，或使用该 LoRA 所对应的检查点。"
    )


class UnsupportedAdapter(FileError):
    en = "{path} holds {kind} weights ('{name}') for several layers of this model at once, which can't be taken apart."
    zh = "{path} 含有同时作用于此模型多个层的 {kind} 权重（“{name}”），无法拆分。"


@dataclass(frozen=True)
class Piece:
    """A module that holds some rows of what a dialect has as one layer: runs of rows (first, behind the last)."""

    module: str
    rows: tuple[tuple[int, int], ...]


Target = str | tuple[Piece, ...]  # what a dialect's name stands for: a module, or the modules that share its rows
Table = Mapping[str, Target]


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

    entries: Mapping[str, Mapping[str, LoraEntry | ModuleChange]]
    unmatched: tuple[str, ...] = field(default=())


def is_lora(header: Header) -> bool:
    return any((found := split_key(name)) and is_adapter_matrix(found[1]) for name in header.tensors)


def without_text(header: Header) -> Header:
    """The header without the text encoder's part of a LoRA: for a model that is loaded alone."""
    return replace(header, tensors={name: info for name, info in header.tensors.items() if not _TEXT.match(name)})


def has_text(header: Header) -> bool:
    """Whether a LoRA says anything about text encoders."""
    return any(_TEXT.match(name) for name in header.tensors)


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
    header: Header,
    tables: Mapping[str, Table],
    shapes: Mapping[str, Mapping[str, Shape]],
    family: str,
    model: str,
    growing: Container[str] = (),
) -> tuple[dict[str, dict[Target, dict[Matrix, str]]], tuple[str, ...]]:
    """Which tensors are which matrix of which module, by name and shape alone: ({part: {target: {matrix: tensor}}},
    names that fit nothing). `family` is who the file seems to be for, `model` what is to use it, in
    words.

    Raises NoLora, LoraOfOtherModel.
    """
    found: dict[str, dict[Target, dict[Matrix, str]]] = {part: {} for part in tables}
    unmatched: list[str] = []
    for key in header.tensors:
        base, matrix = split_key(key) or ("", "")
        part = next((part for part, table in tables.items() if base in table), None)
        if part is None:
            unmatched.append(key)
        else:
            found[part].setdefault(tables[part][base], {})[matrix] = key
    for targets in found.values():
        for target in [target for target, matrices in targets.items() if not kinds_of(matrices.keys())]:
            unmatched += targets.pop(target).values()  # a scale of nothing: extractors leave those of layers they drop
    if not is_lora(header):
        raise NoLora(path=header.path, count=len(header.tensors), name=next(iter(header.tensors), ""))
    if not any(found.values()):
        raise LoraOfOtherModel(
            path=header.path, reason=f"it has no module called '{unmatched[0]}'", family=family, model=model
        )
    for part, targets in found.items():
        for target, matrices in targets.items():
            _check(header, target, matrices, shapes[part], family, model, growing)
    return found, tuple(unmatched)


def read_lora(
    header: Header,
    tables: Mapping[str, Table],
    shapes: Mapping[str, Mapping[str, Shape]],
    family: str,
    model: str,
    growing: Container[str] = (),
) -> LoraFile:
    """The whole file, its matrices in float32 on the host. growing: modules that a low-rank pair may give more inputs.
    Raises what `match` does, and UnsupportedAdapter."""
    import torch

    from engine.weights.adapter_entries import entry_of, piece_of
    from engine.weights.load import read_tensors

    found, unmatched = match(header, tables, shapes, family, model, growing)
    names = [name for targets in found.values() for matrices in targets.values() for name in matrices.values()]
    tensors = read_tensors(header, names, torch.float32)
    entries: dict[str, dict[str, LoraEntry | ModuleChange]] = {part: {} for part in found}
    for part, targets in found.items():
        for target, matrices in targets.items():
            own = {matrix: tensors[name] for matrix, name in matrices.items()}
            if isinstance(target, str):
                if target in growing and "down" in own and own["down"].shape[1] > shapes[part][target][1]:
                    own["reshape_weight"] = torch.tensor([own["up"].shape[0], own["down"].shape[1]])
                entries[part][target] = entry_of(own)
                continue
            for piece in target:
                entry = piece_of(own, piece.rows, _height(target))
                if entry is None:
                    first = next(iter(matrices.values()))
                    raise UnsupportedAdapter(path=header.path, kind=kinds_of(own.keys())[0], name=first)
                entries[part][piece.module] = entry
    return LoraFile(entries, unmatched)


def _check(
    header: Header,
    target: Target,
    matrices: Mapping[Matrix, str],
    shapes: Mapping[str, Shape],
    family: str,
    model: str,
    growing: Container[str],
) -> None:
    kinds = kinds_of(matrices.keys())
    half = next((kind for kind in kinds if missing_half(kind, matrices.keys())), None)
    if half:
        present = next(iter(matrices.values()))
        raise LoraOfOtherModel(path=header.path, reason=f"'{present}' has no other half", family=family, model=model)
    module = target if isinstance(target, str) else target[0].module
    shape = shapes[module] if isinstance(target, str) else (_height(target), *shapes[module][1:])
    if module in growing and "down" in matrices:
        shape = (shape[0], max(shape[1], header.shape(matrices["down"])[1]))
    if "reshape_weight" in matrices:
        return  # what it grows to is only known when the file is read
    own = {matrix: header.shape(name) for matrix, name in matrices.items()}
    odd = next((matrix for matrix in own if not fits_beside(matrix, own[matrix], shape)), None)
    if odd:
        reason = f"'{module}' is {in_words(shape)}, but '{matrices[odd]}' is {in_words(own[odd])}"
        raise LoraOfOtherModel(path=header.path, reason=reason, family=family, model=model)
    for kind in kinds:
        if not fits(kind, own, shape):
            first = next(name for matrix, name in matrices.items() if kinds_of({matrix}) == [kind])
            reason = f"'{module}' is {in_words(shape)}, but '{first}' and its partners are {own}"
            raise LoraOfOtherModel(path=header.path, reason=reason, family=family, model=model)


def _height(pieces: tuple[Piece, ...]) -> int:
    return max(end for piece in pieces for _, end in piece.rows)


def _as_processor(module: str) -> str:
    """diffusers' names before 0.18: attn1.to_q -> attn1.processor.to_q, to_out.0 -> processor.to_out; suffix _lora."""
    head, _, last = module.rpartition(".to_")
    return f"{head}.processor.to_{last.removesuffix('.0')}" if head else module


def title_of(path: Path, metadata: Mapping[str, str]) -> str:
    return metadata.get("modelspec.title") or metadata.get("ss_output_name") or path.stem
