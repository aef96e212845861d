"""Layers that lie in one piece in a file and in several in the module, such as q, k and v behind one another.

Rows of a weight are runs of bytes, so that a cut tensor is read straight from its place in the file. A LoRA that names
the fused layer acts on each of its pieces with their rows of its "up" matrix. Torch-free; it knows no layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from engine.weights.header import Header, TensorInfo
from engine.weights.keymaps import KeyMap, UnknownLayout
from engine.weights.lora import Piece

Rows = tuple[tuple[int, int], ...]  # runs of rows (first, behind the last), in their order
SCALES = ("scale_weight", "scale_input", "weight_scale", "input_scale", "comfy_quant")  # of a layer as a whole
_LEAF = re.compile(rf"(.+)\.(weight|bias|{'|'.join(SCALES)})$")


def pieces(modules: Iterable[str], sizes: Iterable[int]) -> tuple[Piece, ...]:
    """Pieces that lie behind one another, of `sizes` rows each."""
    found: list[Piece] = []
    start = 0
    for module, size in zip(modules, sizes, strict=True):
        found.append(Piece(module, ((start, start + size),)))
        start += size
    return tuple(found)


def halves_swapped(module: str, size: int) -> tuple[Piece, ...]:
    """A layer of 2 * size rows whose halves the module has in the other order."""
    return (Piece(module, ((size, 2 * size), (0, size))),)


@dataclass(frozen=True)
class FusedMap:
    """A layout's names: `plain` for what is the same on both sides, `fused` by the name of the file's layer."""

    plain: KeyMap
    fused: Mapping[str, tuple[Piece, ...]] = field(repr=False)

    def pieces_of(self, layer: str) -> tuple[Piece, ...]:
        """The module's layers that a layer of the file is; `rows` is empty where it is the whole. () when unknown."""
        if layer in self.fused:
            return self.fused[layer]
        name = self.plain.to_diffusers(layer)
        return () if name is None else (Piece(name, ()),)

    def cut(self, header: Header, prefix: str) -> Header:
        """The tensors under `prefix` by the module's names, cut where the layers are. What is unknown is left out."""
        tensors: dict[str, TensorInfo] = {}
        for name, info in header.under(prefix).items():
            tensors |= dict(self._cut(name, replace(info, source=info.source or prefix + name)))
        return replace(header, tensors=tensors)

    def _cut(self, name: str, info: TensorInfo) -> Iterator[tuple[str, TensorInfo]]:
        leaf = _LEAF.match(name)
        if leaf is None or leaf[1] not in self.fused:
            own = self.plain.to_diffusers(name)
            if own is not None:
                yield own, info
            return
        for piece in self.fused[leaf[1]]:
            yield f"{piece.module}.{leaf[2]}", cut_rows(info, piece.rows)


def cut_rows(info: TensorInfo, rows: Rows) -> TensorInfo:
    """Those rows of a tensor; the tensor itself where it is one number for the whole layer. Raises UnknownLayout."""
    if not info.shape or info.shape[0] == 1 or info.dtype == "U8":
        return info
    count = max(end for _, end in rows)
    if info.shape[0] < count or info.runs:
        raise UnknownLayout(what="model", reason=f"{info.source} has {info.shape[0]} rows, {count} are expected")
    row = info.nbytes // info.shape[0]
    runs = tuple((info.start + first * row, info.start + end * row) for first, end in rows)
    shape = (sum(end - first for first, end in rows), *info.shape[1:])
    first, last = min(start for start, _ in runs), max(end for _, end in runs)
    return replace(info, shape=shape, start=first, end=last, runs=runs if len(runs) > 1 else ())
