"""Packs the demo model into one SD 1.x checkpoint and reads it back, without the studio's own loaders.

What the shapes of the weights cannot tell is in the file's metadata: `easel.unet`, `easel.vae` and
`easel.text_encoder` hold fields of the diffusers and transformers configurations as JSON, `easel.tokenizer` the
vocabulary, `easel.defaults` what a form starts with, `easel.latent_rgb` the fit for previews; see docs/demo.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from studio.demo.making import autoencoder, denoiser
from studio.demo.making.latent_rgb import fit_latent_rgb
from studio.demo.making.ldm_keys import is_vae_attention, text_key, unet_key, vae_key
from studio.demo.making.vocabulary import Vocabulary

RESOLUTION = 128
DEFAULTS = {"steps": 16, "cfg": 2.0, "sampler_name": "dpmpp_2m", "scheduler": "karras"}


@dataclass(frozen=True)
class Model:
    """The parts of the demo model."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text: CLIPTextModel
    vocabulary: Vocabulary

    @property
    def tokenizer(self) -> CLIPTokenizer:
        """A tokenizer of the vocabulary."""
        return self.vocabulary.tokenizer()


def save(model: Model, path: Path) -> None:
    """Writes fp16 weights under their checkpoint names."""
    weights = {
        **_renamed(model.unet.state_dict(), unet_key),
        **_renamed(model.vae.state_dict(), lambda key: vae_key(key, len(autoencoder.levels(model.vae)))),
        **_renamed(model.text.state_dict(), text_key),
    }
    for key in filter(is_vae_attention, list(weights)):
        weights[key] = weights[key][:, :, None, None]
    halved = {key: weight.to(torch.float16).contiguous() for key, weight in weights.items()}
    save_file(halved, path, metadata=_metadata(model))


def load(path: Path) -> Model:
    """The parts in fp32; raises where a weight is missing or left over."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        weights = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 - no mapping
    for key in filter(is_vae_attention, list(weights)):
        weights[key] = weights[key][:, :, 0, 0]
    text_config = CLIPTextConfig(**_text_shape(weights), **json.loads(metadata["easel.text_encoder"]))
    model = Model(
        denoiser.new_unet(),
        autoencoder.new_vae((16, 16, 24, 32)),
        CLIPTextModel(text_config),
        Vocabulary(**json.loads(metadata["easel.tokenizer"])),
    )
    used = _fill(model.unet, weights, unet_key)
    used |= _fill(model.vae, weights, lambda key: vae_key(key, len(autoencoder.levels(model.vae))))
    used |= _fill(model.text, weights, text_key)
    if left := set(weights) - used:
        raise ValueError(f"{path} holds {len(left)} weights too many, such as {min(left)}")
    return model


def _metadata(model: Model) -> dict[str, str]:
    text: CLIPTextConfig = model.text.config
    special = {name: getattr(text, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    unet = {"attention_head_dim": denoiser.HEADS, "norm_num_groups": denoiser.GROUPS, "sample_size": RESOLUTION // 8}
    rgb = fit_latent_rgb(model.vae, RESOLUTION)
    configs: dict[str, Any] = {
        "easel.unet": unet,
        "easel.vae": {"norm_num_groups": autoencoder.GROUPS, "sample_size": RESOLUTION},
        "easel.text_encoder": {"num_attention_heads": text.num_attention_heads, **special},
        "easel.tokenizer": asdict(model.vocabulary),
        "easel.defaults": DEFAULTS,
        "easel.latent_rgb": rgb,
    }
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-v1",
        "modelspec.implementation": "https://github.com/CompVis/stable-diffusion",
        "modelspec.title": "Easel demo",
        "modelspec.author": "The Easel authors",
        "modelspec.description": "Coloured shapes on coloured grounds, 128 px. Made by studio.demo.making.",
        "modelspec.license": "Apache-2.0",
        "modelspec.resolution": f"{RESOLUTION}x{RESOLUTION}",
        "modelspec.prediction_type": "epsilon",
        **{key: json.dumps(value, ensure_ascii=False) for key, value in configs.items()},
    }


def _renamed(weights: dict[str, Tensor], rename: Any) -> dict[str, Tensor]:
    return {rename(key): weight for key, weight in weights.items() if not key.endswith("position_ids")}


def _text_shape(weights: dict[str, Tensor]) -> dict[str, int]:
    vocab_size, width = weights[text_key("embeddings.token_embedding.weight")].shape
    positions = len(weights[text_key("embeddings.position_embedding.weight")])
    layers = _count(weights, text_key("encoder.layers.{}.mlp.fc1.weight"))
    inner = len(weights[text_key("encoder.layers.0.mlp.fc1.weight")])
    return {
        "vocab_size": vocab_size,
        "hidden_size": width,
        "projection_dim": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "max_position_embeddings": positions,
    }


def _count(keys: Iterable[str], pattern: str) -> int:
    present, count = set(keys), 0
    while pattern.format(count) in present:
        count += 1
    return count


def _fill(module: torch.nn.Module, weights: dict[str, Tensor], rename: Any) -> set[str]:
    """Loads a module strictly; returns the checkpoint names it took."""
    own = {key: rename(key) for key in module.state_dict() if not key.endswith("position_ids")}
    module.load_state_dict({key: weights[name] for key, name in own.items()}, strict=True)
    module.eval()
    return set(own.values())
