"""Stable Diffusion 1.x: what it is (torch-free) and how it works (in the worker; torch is imported by its parts).

Sizes come from the shapes in the file. What shapes cannot tell is as in SD 1.x, or as the file's metadata says:
`easel.unet`, `easel.vae`, `easel.text_encoder` (JSON: fields of diffusers' and transformers' configs),
`easel.tokenizer` (JSON: {"vocab", "merges"}), `easel.defaults` (JSON: fields of `Defaults`),
`easel.latent_rgb` (JSON: a row of red, green, blue for each latent channel, and one more for the bias).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.families.base import (
    Clip,
    Components,
    Defaults,
    Detected,
    FamilySpec,
    LatentFormat,
    Model,
    Part,
    Prediction,
    TextBatch,
    Vae,
)
from engine.families.parts.stored import BadMetadata, json_metadata, stored_clip, stored_unet, stored_vae
from engine.weights import keymaps, lora
from engine.weights.header import Header
from engine.weights.identify import TITLES, lora_family

if TYPE_CHECKING:
    import torch
    from torch import nn

    from engine.families.parts.schedule import Schedule
    from engine.models.manager import ModelManager

SPEC = FamilySpec(
    name="sd1",
    title="Stable Diffusion 1.x",
    prediction="eps",
    # a fit of RGB to latents of SD 1.5: https://discuss.huggingface.co/t/decoding-latents-to-rgb-without-upscaling/23204
    latent=LatentFormat(
        channels=4,
        scale=0.18215,
        rgb=((0.298, 0.207, 0.208), (0.187, 0.286, 0.173), (-0.158, 0.189, 0.264), (-0.184, -0.271, -0.473)),
    ),
    defaults=Defaults(),
    architecture="stable-diffusion-v1",
    base_model_version="sd_v1",
    family_class="engine.families.sd1:SD1",
)

UNET = {"attention_head_dim": 8, "norm_num_groups": 32}  # diffusers' name for the count of heads is an old mistake
VAE = {"norm_num_groups": 32, "scaling_factor": 0.18215}
TEXT = {"num_attention_heads": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
PREFIXES = {  # where the parts lie: {layout: (UNet, autoencoder, text encoder)}
    "ldm": ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."),
    "diffusers": ("unet.", "vae.", "text_encoder."),
}


def detect(header: Header) -> Detected | None:
    """SD 1.x has cross attention on one CLIP text encoder and no second embedding of size or pooled text."""
    layout = _layout(header)
    if layout is None:
        return None
    vae = stored_vae(header, PREFIXES[layout][1], VAE)
    return Detected(SPEC.name, layout, _prediction(header), _defaults(header), _factor(vae.config))


def detect_vae(header: Header) -> bool:
    """A VAE alone in a file, with as many latent channels as SD 1.x has."""
    name = next((n for n in ("decoder.conv_in.weight", "first_stage_model.decoder.conv_in.weight") if n in header), "")
    return bool(name) and header.shape(name)[1] == SPEC.latent.channels


class SD1:
    spec = SPEC

    def load_checkpoint(
        self, manager: ModelManager, path: Path, embeddings: Sequence[Path] = (), *, allow_pickle: bool = False
    ) -> Components:
        from engine.families.discover import unknown
        from engine.weights.load import open_header

        header = open_header(path, allow_pickle=allow_pickle)
        layout = _layout(header)
        if layout is None:
            raise unknown(header)
        in_unet, in_vae, in_text = PREFIXES[layout]
        title = lora.title_of(path, header.metadata)
        tokenizer = _tokenizer(header)
        special = {"bos_token_id": tokenizer.start, "eos_token_id": tokenizer.end, "pad_token_id": tokenizer.end}
        unet = stored_unet(header, in_unet, UNET)
        vae = stored_vae(header, in_vae, VAE)
        text = stored_clip(header, in_text, TEXT, special)
        latent = _latent(header, vae.config)
        model = Model(
            family=self,
            ref=unet.register(manager, f"{title} UNet"),
            config=unet.config,
            prediction=_prediction(header),
            latent=latent,
            modules=unet.modules(),
        )
        clip = Clip(
            family=self,
            refs=(text.register(manager, f"{title} CLIP"),),
            tokenizers=(tokenizer,),
            configs=(text.config,),
            modules=(text.modules(),),
            embeddings=tuple(embeddings),
        )
        vae_ref = vae.register(manager, f"{title} VAE")
        return Components(
            model, clip, Vae(self, vae_ref, vae.config, latent, _factor(vae.config)), title, header.digest
        )

    def load_vae(self, manager: ModelManager, path: Path, *, allow_pickle: bool = False) -> Vae:
        from engine.families.discover import unknown
        from engine.weights.load import open_header

        header = open_header(path, allow_pickle=allow_pickle)
        if not detect_vae(header):
            raise unknown(header)
        vae = stored_vae(header, "first_stage_model." if header.has_prefix("first_stage_model.") else "", VAE)
        ref = vae.register(manager, lora.title_of(path, header.metadata))
        return Vae(self, ref, vae.config, _latent(header, vae.config), _factor(vae.config))

    def encode_prompt(self, modules: Sequence[nn.Module], clip: Clip, text: str) -> TextBatch:
        from engine.families.parts import clip as part

        cross, pooled = part.encode_prompt(modules[0], clip.tokenizers[0], text, clip.embeddings, clip.stop_at_layer)
        return TextBatch(cross, pooled)

    def encode_captions(self, modules: Sequence[nn.Module], clip: Clip, captions: Sequence[str]) -> TextBatch:
        from engine.families.parts import clip as part

        return TextBatch(*part.encode_captions(modules[0], clip.tokenizers[0], captions, clip.stop_at_layer))

    def encode_image(self, module: nn.Module, vae: Vae, pixels: torch.Tensor) -> torch.Tensor:
        from engine.families.parts import diffusion

        return (diffusion.encode(module, pixels) - vae.latent.shift) * vae.latent.scale

    def decode_latent(self, module: nn.Module, vae: Vae, latents: torch.Tensor) -> torch.Tensor:
        from engine.families.parts import diffusion

        return diffusion.decode(module, latents / vae.latent.scale + vae.latent.shift)

    def predict(self, module: nn.Module, x: torch.Tensor, timesteps: torch.Tensor, text: TextBatch) -> torch.Tensor:
        from engine.families.parts import diffusion

        return diffusion.predict(module, x, timesteps, text.cross)

    def schedule(self, model: Model) -> Schedule:
        from engine.families.parts.schedule import DiscreteSchedule

        return DiscreteSchedule.from_alphas_cumprod(self.alphas_cumprod(model))

    def extra_conditions(
        self, model: Model, pooled: torch.Tensor | None, options: Mapping[str, Any], latent: torch.Tensor
    ) -> Mapping[str, torch.Tensor]:
        return {}

    def alphas_cumprod(self, model: Model) -> torch.Tensor:
        import torch

        betas = torch.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000, dtype=torch.float64) ** 2
        return torch.cumprod(1.0 - betas, dim=0)

    def lora_targets(self, module: nn.Module, part: Part, *, linear: bool, conv: bool) -> list[str]:
        """As kohya's: `linear` is all of the attention blocks, their 1x1 convolutions included, `conv` the residual
        blocks and the changes of size."""
        from torch.nn import Conv2d, Linear

        names = [name for name, layer in module.named_modules() if isinstance(layer, Linear | Conv2d)]
        if part == "text_encoder":
            return [name for name in names if linear and (".self_attn." in name or ".mlp." in name)]
        in_attention = [name for name in names if ".attentions." in name]
        others = [name for name in names if ".resnets." in name or "samplers." in name]
        return [*(in_attention if linear else ()), *(others if conv else ())]

    def lora_key(self, model: Model, part: Part, module_name: str) -> str:
        if part == "denoiser":
            return lora.kohya_name("lora_unet", module_name)
        return lora.kohya_name("lora_te", keymaps.clip_text_map().to_ldm(module_name) or module_name)

    def read_lora(
        self, path: Path, model: Model | None, clip: Clip | None, *, allow_pickle: bool = False
    ) -> lora.LoraFile:
        from engine.weights.load import open_header

        header = open_header(path, allow_pickle=allow_pickle)
        seems = TITLES[lora_family(header)]
        if clip is None and lora.is_lora(header):
            header = lora.without_text(header)
            if not header.tensors:
                return lora.LoraFile({})  # a LoRA of the text encoder alone does nothing to a model
        tables: dict[str, dict[str, str]] = {}
        shapes: dict[str, Mapping[str, tuple[int, ...]]] = {}
        if model is not None:
            tables["denoiser"] = lora.unet_names(model.modules, keymaps.unet_map(model.config))
            shapes["denoiser"] = model.modules
        if clip is not None:
            tables["text_encoder"] = lora.clip_names(clip.modules[0], keymaps.clip_text_map())
            shapes["text_encoder"] = clip.modules[0]
        return lora.read_lora(header, tables, shapes, seems)


def _layout(header: Header) -> str | None:
    for layout, (unet, _, text) in PREFIXES.items():
        first = f"{unet}input_blocks.0.0.weight" if layout == "ldm" else f"{unet}conv_in.weight"
        extra = f"{unet}label_emb.0.0.weight" if layout == "ldm" else f"{unet}add_embedding.linear_1.weight"
        tokens = (f"{text}text_model.embeddings.token_embedding.weight", f"{text}embeddings.token_embedding.weight")
        if first in header and extra not in header and any(name in header for name in tokens):
            return layout if header.shape(first)[1] == SPEC.latent.channels else None
    return None


def _prediction(header: Header) -> Prediction:
    stated = header.metadata.get("modelspec.prediction_type", "") or json_metadata(header, "easel.scheduler").get(
        "prediction_type", ""
    )
    return "v" if "v_pred" in header or str(stated).lower().startswith("v") else SPEC.prediction


def _defaults(header: Header) -> Defaults:
    given = json_metadata(header, "easel.defaults")
    width, _, height = header.metadata.get("modelspec.resolution", "").partition("x")
    if width.isdigit() and height.isdigit() and 64 <= int(width) <= 4096 and 64 <= int(height) <= 4096:
        given = {"width": int(width), "height": int(height), **given}
    known = {field.name: type(field.default) for field in fields(Defaults)}
    for name, value in given.items():
        if name not in known or not isinstance(value, (int, float) if known[name] is float else known[name]):
            raise BadMetadata(path=header.path, key="easel.defaults", reason=f"{name} = {value!r}")
    return replace(SPEC.defaults, **given)


def _latent(header: Header, vae_config: Mapping[str, Any]) -> LatentFormat:
    latent = replace(SPEC.latent, channels=vae_config["latent_channels"], scale=float(vae_config["scaling_factor"]))
    text = header.metadata.get("easel.latent_rgb")
    if text is None:
        return latent
    try:
        rows = [(float(r), float(g), float(b)) for r, g, b in json.loads(text)]
    except (ValueError, TypeError) as error:
        raise BadMetadata(path=header.path, key="easel.latent_rgb", reason=str(error)) from error
    bias = rows[latent.channels] if len(rows) > latent.channels else (0.0, 0.0, 0.0)
    return replace(latent, rgb=tuple(rows[: latent.channels]), rgb_bias=bias)


def _tokenizer(header: Header) -> Any:
    from engine.families.parts.tokenizer import clip_tokenizer, tokenizer_from_json

    text = header.metadata.get("easel.tokenizer")
    return clip_tokenizer() if text is None else tokenizer_from_json(text, header.path)


def _factor(vae_config: Mapping[str, Any]) -> int:
    return 2 ** (len(vae_config["block_out_channels"]) - 1)
