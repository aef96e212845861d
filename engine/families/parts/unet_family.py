"""What all families of UNets do alike: Stable Diffusion 1 and 2, SDXL. A family is a `UNetKind` and what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.families.base import (
    TEXT_PARTS,
    Clip,
    Components,
    EmbeddingFolders,
    Model,
    Part,
    Prompt,
    TextBatch,
    Vae,
    WeightDtype,
)
from engine.families.parts.edm import LATENT_CONCAT, ContinuousTime, as_trained
from engine.families.parts.file_family import FileFamily, clip_text
from engine.families.parts.prompt import text_for
from engine.families.parts.stored import MODEL_KEYS, StoredPart, about, stored_unet, stored_vae
from engine.families.parts.text_encoder import ALONE, TextEncoder, kind_of, place_of
from engine.families.parts.unet_kind import SIZE_EMBEDDING, VAE_PREFIXES, UNetFacts, UNetKind, factor_of
from engine.weights import keymaps, lora
from engine.weights.fused import FusedMap
from engine.weights.header import Header

if TYPE_CHECKING:
    import torch
    from torch import nn

    from engine.families.controls.base import Residuals
    from engine.families.parts.schedule import Schedule
    from engine.models.manager import ModelManager

ZERO_SNR = "zero_snr"  # in Model.options: trained down to noise alone (arXiv:2305.08891)


class UNetFamily(FileFamily[UNetKind]):
    told: int = 0  # numbers that go with the pooled text

    def text_widths(self, model: Model) -> tuple[int, int | None]:
        vector = model.config.get("projection_class_embeddings_input_dim")
        pooled = None if vector is None else vector - self.told * SIZE_EMBEDDING
        return model.config["cross_attention_dim"], pooled

    def load_checkpoint(
        self, manager: ModelManager, path: Path, embeddings: Sequence[Path] = (), *, allow_pickle: bool = False
    ) -> Components:
        header, facts = self._open(path, allow_pickle=allow_pickle)
        title = lora.title_of(path, header.metadata)
        texts = [self._text(header, encoder, encoder.place(header)) for encoder in self.kind.encoders]
        vae = stored_vae(header, VAE_PREFIXES[facts.names], self.kind.vae)
        model = self._model(manager, header, facts, title, vae.config)
        clip = self._clip(manager, texts, title, EmbeddingFolders(embeddings, allow_pickle=allow_pickle))
        vae_ref, factor = vae.register(manager, f"{title} VAE"), factor_of(vae.config)
        link = Vae(self, vae_ref, vae.config, model.latent, factor, about(header, "easel.vae"))
        return Components(model, clip, link, title, header.digest)

    def load_denoiser(
        self, manager: ModelManager, path: Path, *, weight_dtype: WeightDtype = "default", allow_pickle: bool = False
    ) -> Model:
        header, facts = self._open(path, alone=True, allow_pickle=allow_pickle)
        return self._model(manager, header, facts, lora.title_of(path, header.metadata), {}, weight_dtype)

    def numbers_held(self, model: Model, cells: int, tokens: int) -> int:
        """26 for each channel of the finest level in SD 1.x, which attends there, 16 in SDXL; attention itself holds
        no matrix of all pairs."""
        return 27 * int(model.config["block_out_channels"][0]) * cells

    def encode_prompt(self, modules: Sequence[nn.Module], clip: Clip, text: Prompt) -> TextBatch:
        """Of several encoders the states lie side by side, and the pooled text is the last one's. Texts of their own
        are brought to equal lengths; of one text with embeddings that differ in length, what both have is kept."""
        import torch

        from engine.families.parts import clip as part

        encoders, tokenizers, layer = self.kind.encoders, clip.tokenizers, clip.stop_at_layer
        chunks = [
            part.prompt_chunks(config, tokenizer, text_for(text, encoder.name), clip.embeddings, encoder)
            for config, tokenizer, encoder in zip(clip.configs, tokenizers, encoders, strict=True)
        ]
        if not isinstance(text, str):
            part.same_count(chunks, tokenizers, encoders)
        states, pooled = zip(
            *(
                part.encode_chunks(module, tokenizer, one, layer, encoder)
                for module, tokenizer, one, encoder in zip(modules, tokenizers, chunks, encoders, strict=True)
            ),
            strict=True,
        )
        shortest = min(state.shape[1] for state in states)
        return TextBatch(torch.cat([state[:, :shortest] for state in states], dim=-1), pooled[-1])

    def draft_prompt(self, clip: Clip, text: Prompt) -> TextBatch:
        import torch

        from engine.families.parts.prompt import chunks_of

        chunks = max(
            len(chunks_of(text_for(text, name), tokenizer, lambda name: None))
            for name, tokenizer in zip(clip.names, clip.tokenizers, strict=True)
        )
        length, width = clip.configs[0]["max_position_embeddings"], sum(c["hidden_size"] for c in clip.configs)
        pooled = clip.configs[-1]["projection_dim" if "projection" in clip.configs[-1] else "hidden_size"]
        return TextBatch(torch.zeros(1, length * chunks, width), torch.zeros(1, pooled))

    def encode_captions(self, modules: Sequence[nn.Module], clip: Clip, captions: Sequence[str]) -> TextBatch:
        import torch

        from engine.families.parts import clip as part

        states, pooled = zip(
            *(
                part.encode_captions(module, tokenizer, captions, clip.stop_at_layer, encoder)
                for module, tokenizer, encoder in zip(modules, clip.tokenizers, self.kind.encoders, strict=True)
            ),
            strict=True,
        )
        return TextBatch(torch.cat(states, dim=-1), pooled[-1])

    def extra_conditions(
        self, model: Model, pooled: torch.Tensor | None, options: Mapping[str, Any], latent: torch.Tensor
    ) -> Mapping[str, torch.Tensor]:
        concat = self._concat(model, options, latent)
        return {} if concat is None else {"concat": concat}

    def predict(
        self,
        module: nn.Module,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        text: TextBatch,
        control: Residuals | None = None,
    ) -> torch.Tensor:
        from engine.families.parts import diffusion

        return diffusion.predict(module, x, timesteps, text, control)

    def schedule(self, model: Model) -> Schedule:
        from engine.families.parts.schedule import DiscreteSchedule, scaled_linear_alphas_cumprod

        schedule = DiscreteSchedule.from_alphas_cumprod(scaled_linear_alphas_cumprod())
        return schedule.zero_terminal_snr() if model.options.get(ZERO_SNR) else schedule

    def alphas_cumprod(self, model: Model) -> torch.Tensor:
        from engine.families.parts.schedule import ContinuousSchedule, scaled_linear_alphas_cumprod

        if isinstance(model.schedule, ContinuousSchedule):
            raise ContinuousTime(title=model.ref.title)
        if model.options.get(ZERO_SNR):
            return 1 / (self.schedule(model).sigmas.double() ** 2 + 1)
        return scaled_linear_alphas_cumprod()

    def lora_targets(self, module: nn.Module, part: Part, *, linear: bool, conv: bool) -> list[str]:
        """As kohya's: `linear` is all of the attention blocks, their 1x1 convolutions included, `conv` the residual
        blocks and the changes of size."""
        from torch.nn import Conv2d, Linear

        names = [name for name, layer in module.named_modules() if isinstance(layer, Linear | Conv2d)]
        if part in TEXT_PARTS:
            return [name for name in names if linear and (".self_attn." in name or ".mlp." in name)]
        in_attention = [name for name in names if ".attentions." in name]
        others = [name for name in names if ".resnets." in name or "samplers." in name]
        return [*(in_attention if linear else ()), *(others if conv else ())]

    def lora_key(self, model: Model, part: Part, module_name: str) -> str:
        if part == "denoiser":
            return lora.kohya_name("lora_unet", module_name)
        number = str(TEXT_PARTS.index(part) + 1) if len(self.kind.encoders) > 1 else ""
        return lora.kohya_name(f"lora_te{number}", keymaps.clip_text_map().to_ldm(module_name) or module_name)

    def layout(self, model: Model) -> FusedMap:
        return FusedMap(keymaps.unet_map(model.config), {})

    def text_place(self, name: str) -> str:
        return next(encoder.prefixes[0] for encoder in self.kind.encoders if encoder.name == name)

    @property
    def vae_place(self) -> str:
        return VAE_PREFIXES["ldm"]

    def _denoiser_names(self, model: Model) -> lora.Table:
        return lora.unet_names(model.modules, keymaps.unet_map(model.config))

    def _text_names(self, clip: Clip, name: str, modules: Mapping[str, tuple[int, ...]]) -> lora.Table:
        """Of several encoders the first goes without a number, so that the LoRA of an only one fits it."""
        place = clip.names.index(name)
        number = str(place + 1) if place else ""
        return lora.clip_names(modules, keymaps.clip_text_map(), number=number, comfy=f"clip_{name}")

    def _concat(self, model: Model, options: Mapping[str, Any], latent: torch.Tensor) -> torch.Tensor | None:
        """What a UNet with more channels than its latents is shown: of inpainting the mask and the picture without what
        is under it, of InstructPix2Pix the picture, in the VAE's scale. Nothing given means a grey picture that is
        all mask, or none."""
        import torch

        from engine.families.parts.concat import checked, fitted, repeat_to

        channels, (batch, _, height, width) = model.latent.channels, latent.shape
        if model.config["in_channels"] == channels:
            return None
        image, mask = options.get("concat_latent_image"), options.get("concat_mask", options.get("noise_mask"))
        if image is not None:
            image = repeat_to(fitted(checked(image, model).to(latent), height, width), batch)
        if model.config["in_channels"] == 2 * channels:
            if image is None:
                return torch.zeros_like(latent)
            return model.latent.scaled(image) if model.options.get(LATENT_CONCAT) else image
        if mask is None:
            grey = latent.new_tensor(self.kind.grey).view(1, -1, 1, 1)
            return torch.cat([torch.ones_like(latent[:, :1]), grey.expand_as(latent)], dim=1)
        mask = fitted(mask.to(latent).reshape(-1, 1, *mask.shape[-2:]), height, width).round()
        shown = latent if image is None else (image - model.latent.shift) * model.latent.scale
        return torch.cat([repeat_to(mask, batch), shown], dim=1)

    def _open(self, path: Path, *, alone: bool = False, allow_pickle: bool) -> tuple[Header, UNetFacts]:
        from engine.families.discover import unknown
        from engine.weights.load import open_header

        header = open_header(path, allow_pickle=allow_pickle)
        facts = self.kind.facts(header)
        if facts is None or not (alone or self.kind.detect(header)):
            raise unknown(header)
        return header, facts

    def _model(
        self,
        manager: ModelManager,
        header: Header,
        facts: UNetFacts,
        title: str,
        vae_config: Mapping[str, Any],
        weight_dtype: WeightDtype = "default",
    ) -> Model:
        unet = stored_unet(header, facts.prefix, self.kind.unet)
        model = Model(
            family=self,
            ref=unet.register(manager, f"{title} UNet", weight_dtype),
            config=unet.config,
            prediction=self.kind.prediction(header),
            latent=self.kind.latent(header, vae_config),
            modules=unet.modules(),
            options={ZERO_SNR: True} if self.kind.zero_snr(header) else {},
            about=about(header, *MODEL_KEYS),
        )
        return as_trained(model, header)

    def _vae(self, manager: ModelManager, header: Header, title: str) -> Vae:
        prefix = next((prefix for prefix in VAE_PREFIXES.values() if header.has_prefix(prefix)), "")
        vae = stored_vae(header, prefix, self.kind.vae)
        ref = vae.register(manager, title)
        latent, factor = self.kind.latent(header, vae.config), factor_of(vae.config)
        return Vae(self, ref, vae.config, latent, factor, about(header, "easel.vae"))

    def _texts_alone(self, headers: Sequence[Header]) -> list[tuple[str, StoredPart, Any]]:
        by_name = {kind_of(header): header for header in headers}
        return [self._text(by_name[e.name], e, place_of(by_name[e.name], ALONE)) for e in self.kind.encoders]

    def _text(self, header: Header, encoder: TextEncoder, place: str | None) -> tuple[str, StoredPart, Any]:
        assert place is not None, "detected, but not there"
        return encoder.name, *clip_text(header, place, encoder)

    def _title(self, encoder: str) -> str:
        return "CLIP" if len(self.kind.encoders) == 1 else super()._title(encoder)
