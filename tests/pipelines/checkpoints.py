"""Files in the layouts of real ones, and diffusers' modules read from them by diffusers' own converters.

Our key maps make the files' names (tests/families), so that reading them with other code tells whether the maps are
right. Weights are drawn so that prompt, time and picture matter to the result, as they do in a trained model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.loaders import single_file_utils as converters
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from engine.weights.header import read_header
from tests.families.tiny import tiny_vocabulary


def enliven(path: Path, seed: int = 0) -> Path:
    """Draws a file's weights anew, in float32."""
    metadata = dict(read_header(path).metadata)
    save_file(drawn(load_file(path), seed), path, metadata)
    return path


def drawn(tensors: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: _drawn(name, tensor, generator) for name, tensor in sorted(tensors.items())}


def _drawn(name: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    normal = torch.randn(tensor.shape, generator=generator)
    if not tensor.is_floating_point() or tensor.ndim == 0 or tensor.numel() == 0:
        return tensor
    if tensor.ndim == 1:
        return normal * 0.1 + (1.0 if name.endswith((".weight", ".scale")) else 0.0)  # of a norm; a bias
    if "embedding" in name:
        return normal * 0.5
    gain = 2.0 if "attn2" in name else 1.0
    return normal * gain / math.sqrt(tensor[0].numel())


def load(module: nn.Module, state: Mapping[str, Tensor]) -> Any:
    """All of a module's weights, and nothing else, come from `state`."""
    module.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=True)
    return module.eval()


def unet_of(path: Path, config: Mapping[str, Any]) -> UNet2DConditionModel:
    unet = UNet2DConditionModel(**{"sample_size": 64, **config})
    return load(unet, converters.convert_ldm_unet_checkpoint(load_file(path), dict(unet.config)))


def vae_of(path: Path, levels: int, **config: Any) -> AutoencoderKL:
    blocks: dict[str, Any] = {
        "block_out_channels": (8,) * levels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
    }
    vae = AutoencoderKL(layers_per_block=1, latent_channels=4, norm_num_groups=4, **blocks, **config)
    return load(vae, converters.convert_ldm_vae_checkpoint(load_file(path), dict(vae.config)))


def clip_of(path: Path, prefix: str, config: Mapping[str, Any]) -> CLIPTextModel:
    text = CLIPTextModel(CLIPTextConfig(**config, **special()))
    # Where diffusers looks for it.
    text.__dict__["text_model"] = SimpleNamespace(final_layer_norm=text.final_layer_norm)
    return load(text, _bare(converters.convert_ldm_clip_checkpoint(load_file(path), remove_prefix=prefix)))


def openclip_of(path: Path, prefix: str, config: Mapping[str, Any]) -> CLIPTextModelWithProjection:
    text = CLIPTextModelWithProjection(CLIPTextConfig(**config, **special()))
    state = converters.convert_open_clip_checkpoint(text, load_file(path), prefix=prefix)
    return load(text, {name: tensor for name, tensor in state.items() if "position_ids" not in name})


def sd2_text_of(path: Path, prefix: str, config: Mapping[str, Any]) -> CLIPTextModel:
    """diffusers leaves out the last of 24 layers, which SD 2 does not use, and ends with that before it."""
    text = CLIPTextModel(CLIPTextConfig(**{**config, "num_hidden_layers": 23}, **special()))
    state = converters.convert_open_clip_checkpoint(text, load_file(path), prefix=prefix)
    return load(text, {name: tensor for name, tensor in _bare(state).items() if name != "text_projection.weight"})


def _bare(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers 5 has no `text_model.` in a text model's own names."""
    return {n.removeprefix("text_model."): t for n, t in state.items() if "position_ids" not in n}


def special() -> dict[str, int]:
    vocab = tiny_vocabulary()["vocab"]
    end = vocab["<|endoftext|>"]
    return {
        "vocab_size": len(vocab),
        "bos_token_id": vocab["<|startoftext|>"],
        "eos_token_id": end,
        "pad_token_id": end,
    }


def tokenizer(folder: Path, pad_token: str = "<|endoftext|>") -> CLIPTokenizer:
    """transformers' own, of the tiny models' words."""
    words = tiny_vocabulary()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(words["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(words["merges"]))
    return CLIPTokenizer.from_pretrained(folder, pad_token=pad_token, model_max_length=77)
