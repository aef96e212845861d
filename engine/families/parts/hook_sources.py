"""Where hooks take their matrices from: a LoRA file, a LoRA under training, the difference to another checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from engine.families.base import TEXT_PARTS, Clip, LiveLora, Model
from engine.families.discover import family_of
from engine.families.parts.hook import Entries
from engine.families.parts.layers import dense_weight
from engine.families.parts.merging import Half, check_alike
from engine.models.device import Device
from engine.models.loaded import OpaqueModel
from engine.models.manager import Lease, ModelManager, ModelRef, ModelSpec
from engine.weights.adapter_kinds import ModuleChange, Towards
from engine.weights.header import Header
from engine.weights.load import open_header
from engine.weights.lora import LoraFile, has_text

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoraSource:
    path: Path
    title: str
    allow_pickle: bool = False

    @property
    def key(self) -> str:
        return self._header().digest

    def refs(self, models: ModelManager, model: Model | None, clip: Clip | None) -> tuple[ModelRef, ...]:
        header = self._header()
        if model is None and not has_text(header):
            return ()  # a LoRA of the denoiser alone does nothing to a prompt
        return (lora_ref(models, header, self.title, model, clip, allow_pickle=self.allow_pickle),)

    def entries(self, leased: Lease, refs: Sequence[ModelRef], model: Model | None, clip: Clip | None) -> Entries:
        if not refs:
            return {}
        lora: LoraFile = leased[refs[0]]
        if lora.unmatched and model is not None:
            log.warning("%s: %d of its tensors fit nothing in the model", self.title, len(lora.unmatched))
        return lora.entries

    def _header(self) -> Header:
        return open_header(self.path, allow_pickle=self.allow_pickle)


@dataclass(frozen=True)
class LiveSource:
    live: LiveLora
    title: str

    @property
    def key(self) -> str:
        return self.live.key

    def refs(self, models: ModelManager, model: Model | None, clip: Clip | None) -> tuple[ModelRef, ...]:
        return ()

    def entries(self, leased: Lease, refs: Sequence[ModelRef], model: Model | None, clip: Clip | None) -> Entries:
        return self.live.entries


@dataclass(frozen=True)
class CheckpointSource:
    """What makes a model's weights those of a checkpoint; at a strength between, as a LoRA of full rank would."""

    path: Path
    title: str
    embeddings: Sequence[Path] = field(default=(), repr=False)
    allow_pickle: bool = False

    @property
    def key(self) -> str:
        return f"{open_header(self.path, allow_pickle=self.allow_pickle).digest}/as_lora"

    def refs(self, models: ModelManager, model: Model | None, clip: Clip | None) -> tuple[ModelRef, ...]:
        """Raises ModelsDiffer for a checkpoint of other layers."""
        family = family_of(open_header(self.path, allow_pickle=self.allow_pickle))
        other = family.load_checkpoint(models, self.path, self.embeddings, allow_pickle=self.allow_pickle)
        if model is not None:
            check_alike(Half(model.ref, model.modules), Half(other.model.ref, other.model.modules))
            return (other.model.ref,)
        assert clip is not None
        for ref, modules, name in zip(clip.refs, clip.modules, clip.names, strict=True):
            theirs = dict(zip(other.clip.names, zip(other.clip.refs, other.clip.modules, strict=True), strict=True))
            check_alike(Half(ref, modules), Half(*theirs.get(name, (other.clip.refs[0], {}))))
        return tuple(other.clip.refs[other.clip.names.index(name)] for name in clip.names)

    def entries(self, leased: Lease, refs: Sequence[ModelRef], model: Model | None, clip: Clip | None) -> Entries:
        if model is not None:
            return {"denoiser": _towards(leased[refs[0]], model.modules)}
        assert clip is not None
        parts = zip(TEXT_PARTS, refs, clip.modules, strict=False)
        return {part: _towards(leased[ref], modules) for part, ref, modules in parts}


def lora_ref(
    models: ModelManager, header: Header, title: str, model: Model | None, clip: Clip | None, *, allow_pickle: bool
) -> ModelRef:
    """A LoRA file matched to a model, a Clip or both; read once for all who ask for the same."""
    target = model if model is not None else clip
    assert target is not None

    def load(device: Device) -> OpaqueModel:
        read = target.family.read_lora(header.path, model, clip, allow_pickle=allow_pickle)
        return OpaqueModel(read, header.size)

    names = [*([] if model is None else [model.ref.key]), *(() if clip is None else (ref.key for ref in clip.refs))]
    key = f"{header.digest}/lora/{' '.join(names)}"
    return models.add(ModelSpec(key, "lora", title, header.size, load))


def _towards(module: nn.Module, modules: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in modules:
        layer = module.get_submodule(name)
        bias = layer._parameters.get("bias")
        found[name] = ModuleChange((Towards(dense_weight(layer)),), () if bias is None else (Towards(bias),))
    return found
