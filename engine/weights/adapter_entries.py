"""From the matrices of one module to what acts on it: a low-rank pair beside it, or changes of its weight and bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from engine.weights.adapter_keys import Matrix, kinds_of
from engine.weights.adapter_kinds import (
    Addition,
    Change,
    Difference,
    DoRA,
    ModuleChange,
    Rows,
    change_of,
    held_back,
    take_rows,
)
from engine.weights.lora import LoraEntry

_BY_ROWS = (
    "up",
    "diff",
    "diff_b",
    "set_weight",
    "rescale",
    "dora",
    "magnitude",
)  # matrices whose rows are those of the weight


def entry_of(tensors: Mapping[Matrix, Tensor]) -> LoraEntry | ModuleChange:
    """Of a complete set of matrices, as `lora.match` finds it."""
    if tensors.keys() <= {"down", "up", "mid", "alpha"}:
        return LoraEntry(tensors["down"], tensors["up"], tensors.get("mid"), _alpha(tensors))
    return ModuleChange(_with_lengths(_changes(tensors), tensors), _of_bias(tensors))


def piece_of(
    tensors: Mapping[Matrix, Tensor], ranges: tuple[tuple[int, int], ...], rows: int
) -> LoraEntry | ModuleChange | None:
    """The part that acts on some rows of the weight of `rows` rows that it was made for. None for what ties rows
    together (turns of rows of several parts, lengths of columns) or is no sum."""
    kinds = set(kinds_of(tensors.keys()))
    by_columns = "dora" in tensors and tensors["dora"].shape[0] != rows
    if by_columns or "GLoRA" in kinds or "reshape_weight" in tensors:
        return None
    own = dict(tensors)
    if "OFT" in kinds:
        blocks = _turned_alone(tensors, ranges)
        if blocks is None:
            return None
        own["oft_blocks"] = blocks
        own.pop("alpha", None)
    if "magnitude" in own:
        own["magnitude"] = own["magnitude"].flatten()
    own |= {name: take_rows(own[name], ranges) for name in _BY_ROWS if name in own}
    if not kinds & {"LoHa", "LoKr"}:
        return entry_of(own)
    whole = [Rows(change, ranges, rows) for change in _changes(tensors) if isinstance(change, Addition)]
    return ModuleChange(_with_lengths(whole, own), _of_bias(own))


def _turned_alone(tensors: Mapping[Matrix, Tensor], ranges: tuple[tuple[int, int], ...]) -> Tensor | None:
    """OFT's blocks of those rows, held back by the constraint of all; None where a block turns other rows as well."""
    blocks = tensors["oft_blocks"]
    size = blocks.shape[-1]
    if blocks.ndim != 3 or any(edge % size for run in ranges for edge in run):
        return None
    held = held_back(blocks, _alpha(tensors) or 0.0)
    return take_rows(held, tuple((start // size, end // size) for start, end in ranges))


def _changes(tensors: Mapping[Matrix, Tensor]) -> list[Change]:
    """What happens to the weight, a replacement first."""
    kinds = [kind for kind in kinds_of(tensors.keys()) if kind != "difference" or "diff" in tensors]
    kinds.sort(key=lambda kind: kind != "replacement")
    shape = tensors.get("reshape_weight")
    reshaped = () if shape is None else tuple(int(n) for n in shape)
    return [change_of(kind, tensors, _alpha(tensors), reshaped) for kind in kinds]


def _with_lengths(changes: Sequence[Change], tensors: Mapping[Matrix, Tensor]) -> tuple[Change, ...]:
    """DoRA's lengths lie over what the first change makes. peft's are those of rows, whatever their shape is."""
    lengths = tensors["magnitude"].flatten()[:, None] if "magnitude" in tensors else tensors.get("dora")
    if lengths is None or not changes:
        return tuple(changes)
    return DoRA(changes[0], lengths), *changes[1:]


def _of_bias(tensors: Mapping[Matrix, Tensor]) -> tuple[Change, ...]:
    return (Difference(tensors["diff_b"]),) if "diff_b" in tensors else ()


def _alpha(tensors: Mapping[Matrix, Tensor]) -> float | None:
    return float(tensors["alpha"]) if "alpha" in tensors else None
