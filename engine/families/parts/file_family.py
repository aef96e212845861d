"""What all families do alike whose parts lie in files of known names: `UNetFamily` and `DitFamily` build on it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from engine.families.base import TEXT_PARTS, Clip, EmbeddingFolders, Family, FamilySpec, Model, Vae
from engine.families.parts.stored import TEXT_KEYS, StoredPart, about, stored_clip
from engine.families.parts.text_encoder import TextEncoder
from engine.families.parts.tokenizer import ClipTokenizer, clip_tokenizer, tokenizer_from_json
from engine.weights import lora
from engine.weights.header import Header
from engine.weights.identify import TITLES, lora_family

if TYPE_CHECKING:
    import torch
    from torch import nn

    from engine.models.manager import ModelManager


class Kind(Protocol):
    """How a family's files are known."""

    @property
    def spec(self) -> FamilySpec: ...

    def detect_vae(self, header: Header) -> bool: ...

    def detect_clip(self, headers: Sequence[Header]) -> bool: ...


KindT = TypeVar("KindT", bound=Kind)


class FileFamily(Family, Generic[KindT]):
    kind: KindT
    growing: tuple[str, ...] = ()  # layers that a LoRA may give more inputs, so that the model sees more beside x

    @property
    def spec(self) -> FamilySpec:
        return self.kind.spec

    def load_vae(self, manager: ModelManager, path: Path, *, allow_pickle: bool = False) -> Vae:
        from engine.families.discover import unknown
        from engine.weights.load import open_header

        header = open_header(path, allow_pickle=allow_pickle)
        if not self.kind.detect_vae(header):
            raise unknown(header)
        return self._vae(manager, header, lora.title_of(path, header.metadata))

    def load_clip(
        self,
        manager: ModelManager,
        paths: Sequence[Path],
        embeddings: Sequence[Path] = (),
        *,
        allow_pickle: bool = False,
    ) -> Clip:
        from engine.families.discover import unknown
        from engine.weights.load import open_header

        headers = [open_header(path, allow_pickle=allow_pickle) for path in paths]
        if not self.kind.detect_clip(headers):
            raise unknown(headers[0])
        title = " + ".join(path.stem for path in paths)
        folders = EmbeddingFolders(embeddings, allow_pickle=allow_pickle)
        return self._clip(manager, self._texts_alone(headers), title, folders)

    def encode_image(self, module: nn.Module, vae: Vae, pixels: torch.Tensor) -> torch.Tensor:
        from engine.families.parts import diffusion

        return (diffusion.encode(module, pixels) - vae.latent.shift) * vae.latent.scale

    def decode_latent(self, module: nn.Module, vae: Vae, latents: torch.Tensor) -> torch.Tensor:
        from engine.families.parts import diffusion

        return diffusion.decode(module, latents / vae.latent.scale + vae.latent.shift)

    def read_lora(
        self, path: Path, model: Model | None, clip: Clip | None, *, allow_pickle: bool = False
    ) -> lora.LoraFile:
        from engine.weights.load import open_header

        header = self._lora_header(open_header(path, allow_pickle=allow_pickle))
        seems = TITLES[lora_family(header)]
        if clip is None and lora.is_lora(header):
            header = lora.without_text(header)
            if not header.tensors:
                return lora.LoraFile({})  # a LoRA of the text encoders alone does nothing to a model
        tables: dict[str, lora.Table] = {}
        shapes: dict[str, Mapping[str, tuple[int, ...]]] = {}
        if model is not None:
            tables["denoiser"], shapes["denoiser"] = self._denoiser_names(model), model.modules
        if clip is not None:
            for part, name, modules in zip(TEXT_PARTS, clip.names, clip.modules, strict=False):
                tables[part], shapes[part] = self._text_names(clip, name, modules), modules
        return lora.read_lora(header, tables, shapes, seems, self.spec.title, self.growing)

    def _lora_header(self, header: Header) -> Header:
        """A LoRA file's header with the names that all others have, where its maker has words of his own."""
        return header

    @abstractmethod
    def _vae(self, manager: ModelManager, header: Header, title: str) -> Vae:
        """Of a file that holds a VAE of this family, alone or among others."""

    @abstractmethod
    def _texts_alone(self, headers: Sequence[Header]) -> Iterable[tuple[str, StoredPart, Any]]:
        """(name, weights, tokenizer) of the encoders that are alone in files, in the family's order."""

    @abstractmethod
    def _denoiser_names(self, model: Model) -> lora.Table:
        """What LoRA files call the denoiser's layers."""

    @abstractmethod
    def _text_names(self, clip: Clip, name: str, modules: Mapping[str, tuple[int, ...]]) -> lora.Table:
        """What LoRA files call the layers of the encoder `name`."""

    def _clip(
        self,
        manager: ModelManager,
        texts: Iterable[tuple[str, StoredPart, Any]],
        title: str,
        embeddings: EmbeddingFolders,
    ) -> Clip:
        """Registers the encoders, which come as `_texts_alone` gives them."""
        texts = list(texts)
        names = tuple(name for name, _, _ in texts)
        return Clip(
            family=self,
            refs=tuple(part.register(manager, f"{title} {self._title(name)}") for name, part, _ in texts),
            tokenizers=tuple(tokenizer for _, _, tokenizer in texts),
            configs=tuple(part.config for _, part, _ in texts),
            modules=tuple(part.modules() for _, part, _ in texts),
            names=names,
            embeddings=embeddings,
            about={key: text for _, part, _ in texts for key, text in about(part.header, *TEXT_KEYS).items()},
        )

    def _title(self, encoder: str) -> str:
        return f"CLIP-{encoder.upper()}"


def clip_text(header: Header, place: str, encoder: TextEncoder) -> tuple[StoredPart, ClipTokenizer]:
    """A CLIP text encoder under a prefix, with the tokenizer that the file brings or the usual one."""
    text = header.metadata.get("easel.tokenizer")
    tokenizer = clip_tokenizer() if text is None else tokenizer_from_json(text, header.path)
    special = {"bos_token_id": tokenizer.start, "eos_token_id": tokenizer.end, "pad_token_id": tokenizer.end}
    return stored_clip(header, place, encoder, special), tokenizer
