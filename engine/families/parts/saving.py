"""Models as the tensors of files that everybody reads: in their maker's names, with what acts on them in their weights.

A tensor has the type that its file has it in; one that was quantised is bfloat16, and one whose type in memory is
smaller has that. One tensor at a time is made, from the shared module, which stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import log
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import GraphError
from engine.families.base import TEXT_PARTS, Adapter, Clip, Model, Vae
from engine.families.parts.adapters import by_module, changed
from engine.families.parts.dit_kind import T5_NAME
from engine.families.parts.layers import Stored, StoredConv2d, StoredLinear, unpacked
from engine.models.manager import ModelManager, ModelRef
from engine.weights.adapter_kinds import ModuleChange
from engine.weights.keymaps import vae_map
from engine.weights.load import DTYPES
from engine.weights.sources import Source, clip_sources, denoiser_sources, openclip_sources, t5_sources, vae_sources

CHECKPOINT_PLACE = "model.diffusion_model."
FLOATS = ("F64", "F32", "F16", "BF16")
MOST_WORKING = 1 << 30  # bytes that making one tensor takes, at most: Flux' largest in float32, and what acts on it
Shapes = Mapping[str, tuple[int, ...]]


class NotSaved(GraphError):
    en = "{title} can't be saved as a VAE: it is one of the small stand-ins, whose files others make. Save its own VAE."
    zh = "{title} 无法保存为 VAE：它是小型替代 VAE。请保存模型自己的 VAE。"


class PartsDiffer(GraphError):
    en = "A {model} can't be saved with {other}: no file has both. Connect what belongs to the model."
    zh = "{model} 无法与 {other} 保存在同一文件中。请连接属于该模型的部分。"


@dataclass(frozen=True)
class Part:
    """A model that becomes part of a file. `sources` names the tensors of its module there; `constants` are what the
    file has and the module does not."""

    ref: ModelRef
    adapters: tuple[Adapter, ...]
    sources: Callable[[Shapes], Iterable[Source]] = field(repr=False)
    constants: Mapping[str, Tensor] = field(default_factory=dict, repr=False)


def denoiser_part(model: Model, place: str = CHECKPOINT_PLACE) -> Part:
    layout = model.family.layout(model)
    return Part(model.ref, model.adapters, lambda own: [s.under(place) for s in denoiser_sources(own, layout)])


def text_parts(clip: Clip) -> list[Part]:
    """Of a checkpoint."""
    return [_text_part(clip, i, clip.family.text_place(name)) for i, name in enumerate(clip.names)]


def text_parts_alone(clip: Clip, place: Callable[[str], str] = lambda name: "") -> dict[str, Part]:
    """Of files with one text encoder each, by their names there: {"clip_l": part}; `place` is told that name."""
    names = {name: name if name == T5_NAME else f"clip_{name}" for name in clip.names}
    return {names[name]: _text_part(clip, i, place(names[name])) for i, name in enumerate(clip.names)}


def vae_part(vae: Vae, place: str = "") -> Part:
    """Raises NotSaved."""
    if "block_out_channels" not in vae.config:
        raise NotSaved(title=vae.ref.title)
    names = vae_map(vae.config)
    return Part(vae.ref, (), lambda own: [source.under(place) for source in vae_sources(own, names)])


def checkpoint_parts(model: Model, clip: Clip, vae: Vae) -> list[Part]:
    """Raises NotSaved, PartsDiffer."""
    if clip.family.spec != model.family.spec:
        raise PartsDiffer(model=model.family.spec.title, other=f"{clip.family.spec.title} CLIP ({clip.refs[0].title})")
    if vae.latent.channels != model.latent.channels:
        channels = f"a VAE of {vae.latent.channels} channels ({vae.ref.title})"
        raise PartsDiffer(model=model.family.spec.title, other=channels)
    return [denoiser_part(model), *text_parts(clip), vae_part(vae, model.family.vae_place)]


def names_of(manager: ModelManager, parts: Iterable[Part]) -> list[str]:
    """As long as the names in the file are, and as many, or more: before any model is loaded."""
    longest = "." * 48  # what a place and a maker's name are longer by, at most
    return [f"{longest}{name}" for part in parts for name in (*manager.stored(part.ref), *part.constants)]


def tensors_of(manager: ModelManager, parts: Iterable[Part]) -> Iterator[tuple[str, Tensor]]:
    """(name in the file, tensor on the host), one part after another. Raises NoNameInFiles."""
    for name, tensor, stored in made(manager, parts):
        yield name, tensor.to("cpu", kept_as(stored, tensor.dtype))


def made(manager: ModelManager, parts: Iterable[Part]) -> Iterator[tuple[str, Tensor, str | None]]:
    """(name in the file, tensor as it is in memory, type of it in the file it is from). Raises NoNameInFiles."""
    for part in parts:
        yield from ((name, tensor, None) for name, tensor in part.constants.items())
        stored = manager.stored(part.ref)
        with manager.lease(part.ref, working=min(manager.nbytes(part.ref), MOST_WORKING)) as leased:
            weights = Weights(leased[part.ref], part.adapters)
            for source in part.sources(weights.shapes):
                yield source.name, _tensor(source, weights), stored.get(source.parts[0][0])


class Weights(Mapping[str, Tensor]):
    """The tensors of a module with what acts on it in them, each made when it is asked for."""

    def __init__(self, module: nn.Module, adapters: Sequence[Adapter]) -> None:
        self._module = module
        self._acting = by_module(adapters)
        self._plain = module.state_dict()
        self.shapes: dict[str, tuple[int, ...]] = dict(self._shapes())

    def __getitem__(self, name: str) -> Tensor:
        place, _, leaf = name.rpartition(".")
        layer = self._module.get_submodule(place)
        if place in self._acting and leaf in ("weight", "bias"):
            made = dict(changed(layer, self._acting[place]))
            if leaf in made:
                return made[leaf]
        return unpacked(layer, torch.float32) if isinstance(layer, Stored) and leaf == "weight" else self._plain[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def _shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        for name, tensor in self._plain.items():
            place, _, leaf = name.rpartition(".")
            layer = self._module.get_submodule(place)
            if not isinstance(layer, Stored):
                yield name, tuple(tensor.shape)
            elif leaf != "weight_scale":
                yield name, _shape(layer) if leaf == "weight" else tuple(tensor.shape)
        for place, entries in self._acting.items():  # a bias that an adapter gives a layer
            gives = any(isinstance(entry, ModuleChange) and entry.bias for entry, _ in entries)
            if gives and f"{place}.bias" not in self._plain:
                yield f"{place}.bias", ()


def about_parts(model: Model | None, clip: Clip | None, vae: Vae | None) -> dict[str, str]:
    """What their files said of them that has to be said again, for them to be read as they were."""
    links: tuple[Any, ...] = (model, clip, vae)
    return {key: text for link in links if link is not None for key, text in link.about.items()}


def _text_part(clip: Clip, index: int, place: str) -> Part:
    name = clip.names[index]
    constants: dict[str, Tensor] = {}
    openclip = place.endswith(".model.")
    make = t5_sources if name == T5_NAME else openclip_sources if openclip else clip_sources
    if openclip:  # pictures are compared by it; nothing here reads it, other readers of OpenCLIP's names expect it
        constants[f"{place}logit_scale"] = torch.tensor(log(100.0))
    elif place == "cond_stage_model.transformer.":  # as the oldest checkpoints have it
        length = int(clip.configs[index]["max_position_embeddings"])
        constants[f"{place}text_model.embeddings.position_ids"] = torch.arange(length)[None]
    adapters = tuple(adapter for adapter in clip.adapters if adapter.part == TEXT_PARTS[index])
    return Part(clip.refs[index], adapters, lambda own: [source.under(place) for source in make(own)], constants)


def _tensor(source: Source, weights: Mapping[str, Tensor]) -> Tensor:
    pieces = [weights[name] for name, _ in source.parts]
    if source.form == "convolution":
        return pieces[0][:, :, None, None]
    if source.form == "transposed":
        return pieces[0].T
    return _joined(pieces, [rows for _, rows in source.parts])


def kept_as(stored: str | None, in_memory: torch.dtype) -> torch.dtype:
    """The type that a tensor is saved in."""
    if stored is None or not in_memory.is_floating_point:
        return in_memory
    if stored not in FLOATS:
        return torch.bfloat16
    dtype = DTYPES[stored]
    return in_memory if in_memory.itemsize < dtype.itemsize else dtype


def _joined(pieces: Sequence[Tensor], rows: Sequence[tuple[tuple[int, int], ...]]) -> Tensor:
    """Rows of several tensors in the order of the file; of one that is the whole, itself."""
    if len(pieces) == 1 and not rows[0]:
        return pieces[0]
    if not rows[0]:
        return torch.cat(list(pieces))
    runs: list[tuple[int, Tensor]] = []
    for piece, places in zip(pieces, rows, strict=True):
        parts = piece.split([end - start for start, end in places])
        runs += [(start, part) for (start, _), part in zip(places, parts, strict=True)]
    return torch.cat([part for _, part in sorted(runs, key=lambda run: run[0])])


def _shape(layer: Stored) -> tuple[int, ...]:
    if isinstance(layer, StoredLinear):
        return layer.out_features, layer.in_features
    if isinstance(layer, StoredConv2d):
        return (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size)
    return layer.num_embeddings, layer.embedding_dim
