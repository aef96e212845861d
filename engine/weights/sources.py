"""What a tensor of a file is made of, where the file names a model's layers as its maker does: the way back from the
module that `keymaps`, `fused` and `openclip` lead to. Torch-free. It knows layouts, not models or families.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from engine.errors import FileError
from engine.weights.fused import FusedMap, Rows
from engine.weights.keymaps import KeyMap, clip_text_map
from engine.weights.openclip import OUTER, layer_name

Form = Literal["same", "convolution", "transposed"]  # of the module's tensor; a convolution of 1 x 1 for a linear layer


class NoNameInFiles(FileError):
    en = "'{name}' has no name in {layout} files, so that this model can't be saved as one."
    zh = "“{name}”在 {layout} 文件中没有对应名称，因此无法将此模型保存为该格式。"


@dataclass(frozen=True)
class Source:
    """A tensor of a file: its name there, and the tensors of the module whose rows it has. Rows are those of the file;
    () means all of them."""

    name: str
    parts: tuple[tuple[str, Rows], ...]
    form: Form = "same"

    def under(self, prefix: str) -> Source:
        return replace(self, name=prefix + self.name)


def denoiser_sources(own: Iterable[str], layout: FusedMap) -> Iterator[Source]:
    """Of a UNet or a transformer. Raises NoNameInFiles."""
    fused = {piece.module: layer for layer, pieces in layout.fused.items() for piece in pieces}
    names = set(own)
    for name in sorted(names):
        module, _, leaf = name.rpartition(".")
        layer = fused.get(module)
        if layer is None:
            yield _renamed(name, layout.plain.to_ldm, "the maker's")
            continue
        pieces = layout.fused[layer]
        if module == pieces[0].module:
            parts = tuple((f"{piece.module}.{leaf}", piece.rows) for piece in pieces)
            missing = next((part for part, _ in parts if part not in names), None)
            if missing is not None:
                raise NoNameInFiles(name=missing, layout="the maker's")
            yield Source(f"{layer}.{leaf}", parts)


def vae_sources(own: Mapping[str, tuple[int, ...]], names: KeyMap) -> Iterator[Source]:
    """Of an autoencoder, in LDM's names: its attention is of convolutions there. Raises NoNameInFiles."""
    for name, shape in own.items():
        linear = "attentions" in name and len(shape) == 2
        yield replace(_renamed(name, names.to_ldm, "LDM"), form="convolution" if linear else "same")


def clip_sources(own: Iterable[str]) -> Iterator[Source]:
    """Of a CLIP text encoder in the names of transformers' files. Raises NoNameInFiles."""
    for name in own:
        if name.startswith("text_projection"):
            yield _projection(name, "text_projection.weight", linear=True)
        else:
            yield _renamed(name, clip_text_map().to_ldm, "transformers'")


def openclip_sources(own: Iterable[str]) -> Iterator[Source]:
    """Of a CLIP text encoder in OpenCLIP's names: q, k and v of its attention in one. Raises NoNameInFiles."""
    outer = {new: old for old, new in OUTER.items() if not old.startswith("text_projection")}
    for name in own:
        if name.startswith("text_projection"):
            yield _projection(name, "text_projection", linear=False)
            continue
        known = clip_text_map().to_ldm(name) or name
        if known in outer:
            yield Source(outer[known], ((name, ()),))
        elif ".self_attn." not in known or ".out_proj." in known:
            yield _renamed(name, lambda n: layer_name(clip_text_map().to_ldm(n) or n), "OpenCLIP's")
        elif ".q_proj." in known:
            layer, _, leaf = name.partition(".self_attn.q_proj.")
            number = known.split(".")[3]
            parts = tuple((f"{layer}.self_attn.{p}_proj.{leaf}", ()) for p in "qkv")
            yield Source(f"transformer.resblocks.{number}.attn.in_proj_{leaf}", parts)


def t5_sources(own: Iterable[str]) -> Iterator[Source]:
    """Files of T5 have the module's names."""
    return (Source(name, ((name, ()),)) for name in own)


def _renamed(name: str, rename: Callable[[str], str | None], layout: str) -> Source:
    found = rename(name)
    if found is None:
        raise NoNameInFiles(name=name, layout=layout)
    return Source(found, ((name, ()),))


def _projection(name: str, called: str, *, linear: bool) -> Source:
    """The pooled text's: a linear layer's weight in transformers' files, a matrix, the other way round, in OpenCLIP's.
    The module has either."""
    is_linear = name.endswith(".weight")
    return Source(called, ((name, ()),), "same" if is_linear == linear else "transposed")
