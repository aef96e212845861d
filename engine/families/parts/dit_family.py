"""What families of diffusion transformers (Flux.1, SD3) do alike: each is a `DitKind` and what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import GraphError
from engine.families.base import (
    TEXT_PARTS,
    Clip,
    Components,
    EmbeddingFolders,
    Model,
    Part,
    Vae,
    WeightDtype,
)
from engine.families.parts.dit_kind import COMFY, T5_NAME, DitKind, encoder_of, place_alone, stored_t5, vae_prefix
from engine.families.parts.file_family import FileFamily, clip_text
from engine.families.parts.stored import MODEL_KEYS, StoredPart, about, stored_vae
from engine.families.parts.text_encoder import TextEncoder
from engine.weights import keymaps, lora
from engine.weights.fused import FusedMap
from engine.weights.header import Header
from engine.weights.lora_dit import denoiser_names, t5_names

if TYPE_CHECKING:
    import torch
    from torch import nn

    from engine.models.manager import ModelManager

VAE = {"norm_num_groups": 32}
PATCH = 2  # cells along a side of a token


class NoTextEncoder(GraphError):
    en = "{title} has no text encoder in its file. Load its text encoders with {loader} and connect that instead."
    zh = "{title} 的文件中没有文本编码器。请用 {loader} 加载其文本编码器并改接该节点。"


class DitFamily(FileFamily[DitKind]):
    clips: Mapping[str, TextEncoder]  # how its CLIP encoders are read
    loader: str  # the node that loads its text encoders from files

    def text_widths(self, model: Model) -> tuple[int, int | None]:
        return model.config["joint_attention_dim"], model.config["pooled_projection_dim"]

    def load_checkpoint(
        self, manager: ModelManager, path: Path, embeddings: Sequence[Path] = (), *, allow_pickle: bool = False
    ) -> Components:
        header = self._open(path, allow_pickle=allow_pickle)
        title = lora.title_of(path, header.metadata)
        model = self._model(manager, header, title)
        texts = [self._text(name, header, place) for name, place in self.kind.encoder_places(header).items()]
        clip = self._clip(manager, texts, title, EmbeddingFolders(embeddings, allow_pickle=allow_pickle))
        vae = self._vae(manager, header, f"{title} VAE")
        return Components(model, clip, vae, title, header.digest)

    def load_denoiser(
        self, manager: ModelManager, path: Path, *, weight_dtype: WeightDtype = "default", allow_pickle: bool = False
    ) -> Model:
        header = self._open(path, allow_pickle=allow_pickle)
        return self._model(manager, header, lora.title_of(path, header.metadata), weight_dtype)

    def numbers_held(self, model: Model, cells: int, tokens: int) -> int:
        """For each token of picture and text 17 times the width in Flux, whose feed-forward lies beside its attention,
        13 times in SD3."""
        width = int(model.config["num_attention_heads"]) * int(model.config["attention_head_dim"])
        return 18 * width * (cells // PATCH**2 + tokens)

    def alphas_cumprod(self, model: Model) -> torch.Tensor:
        raise NotImplementedError(f"{self.spec.title} is a flow: its noise has no alphas")

    def lora_targets(self, module: nn.Module, part: Part, *, linear: bool, conv: bool) -> list[str]:
        """Attention and feed-forward of every block; transformers have no convolutions to train."""
        from torch.nn import Linear

        names = [name for name, layer in module.named_modules() if isinstance(layer, Linear)] if linear else []
        inside = (".attn", ".ff", ".proj_mlp", ".proj_out", ".self_attn.", ".mlp.", "SelfAttention.", "DenseReluDense.")
        return [name for name in names if "." in name and any(word in name for word in inside)]

    def lora_key(self, model: Model, part: Part, module_name: str) -> str:
        if part == "denoiser":
            return lora.kohya_name("lora_transformer", module_name)
        name = self.kind.encoders[TEXT_PARTS.index(part)]
        number = self.kind.encoders.index(name) + 1
        if name != T5_NAME:
            module_name = keymaps.clip_text_map().to_ldm(module_name) or module_name
        return lora.kohya_name(f"lora_te{number}", module_name)

    def layout(self, model: Model) -> FusedMap:
        return self.kind.layout(model.config)

    def text_place(self, name: str) -> str:
        return f"text_encoders.{COMFY[name]}.transformer."

    @property
    def vae_place(self) -> str:
        return "first_stage_model."

    def _denoiser_names(self, model: Model) -> lora.Table:
        return denoiser_names(model.modules, self.kind.layout(model.config))

    def _text_names(self, clip: Clip, name: str, modules: Mapping[str, tuple[int, ...]]) -> lora.Table:
        number = self.kind.encoders.index(name) + 1
        if name == T5_NAME:  # kohya's number for T5 is 3 even where there are two encoders, OneTrainer's is its place
            return t5_names(modules, {str(number), "3"}, f"text_encoder_{number}")
        return lora.clip_names(modules, keymaps.clip_text_map(), number=str(number), comfy=f"clip_{name}")

    def _open(self, path: Path, *, allow_pickle: bool) -> Header:
        from engine.families.discover import unknown
        from engine.weights.load import open_header

        header = open_header(path, allow_pickle=allow_pickle)
        if self.kind.denoiser(header) is None:
            raise unknown(header)
        return header

    def _model(self, manager: ModelManager, header: Header, title: str, weight_dtype: WeightDtype = "default") -> Model:
        found = self.kind.denoiser(header)
        assert found is not None, "opened, but not there"
        part = self.kind.stored(header, found)
        return Model(
            family=self,
            ref=part.register(manager, f"{title} transformer", weight_dtype),
            config=part.config,
            prediction=self.spec.prediction,
            latent=self.spec.latent,
            modules=part.modules(),
            about=about(header, *MODEL_KEYS),
        )

    def _vae(self, manager: ModelManager, header: Header, title: str) -> Vae:
        latent = self.spec.latent
        part = stored_vae(header, vae_prefix(header) or "", {**VAE, "scaling_factor": latent.scale})
        factor = 2 ** (len(part.config["block_out_channels"]) - 1)
        return Vae(self, part.register(manager, title), part.config, latent, factor, about(header, "easel.vae"))

    def _texts_alone(self, headers: Sequence[Header]) -> list[tuple[str, StoredPart, Any]]:
        found = {encoder_of(header) or "": header for header in headers}
        names = [name for name in self.kind.encoders if name in found]
        return [self._text(name, found[name], place_alone(found[name], name)) for name in names]

    def _text(self, name: str, header: Header, place: str) -> tuple[str, StoredPart, Any]:
        if name != T5_NAME:
            return name, *clip_text(header, place, self.clips[name])
        from engine.families.parts.t5_tokenizer import t5_tokenizer, t5_tokenizer_from_json

        text = header.metadata.get("easel.t5_tokenizer")
        tokenizer = t5_tokenizer() if text is None else t5_tokenizer_from_json(text, header.path)
        return name, stored_t5(header, place), tokenizer

    def _title(self, encoder: str) -> str:
        return "T5" if encoder == T5_NAME else super()._title(encoder)
