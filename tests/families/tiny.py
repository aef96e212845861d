"""Random SD 1.x checkpoints small enough for tests, in the LDM layout that ordinary checkpoints have.

    path = make_tiny_sd1(tmp_path / "tiny.safetensors")

Three levels, two layers per block, a VAE of factor 4 (`vae_levels=4` for 8), 32 wide text; CLIP's real vocabulary is
left out: the tokenizer in the metadata has the bytes and a few words. Equal seeds make equal bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from engine.families.parts.tokenizer import END, START, _byte_alphabet
from engine.weights import keymaps
from engine.weights.header import read_header

UNET: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (8, 16, 16),
    "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 32,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
}
WORDS = ("red", "blue", "cat", "dog", "a", "photo", "of")


def make_tiny_sd1(
    path: Path,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float16,
    vae_levels: int = 3,
    metadata: dict[str, str] | None = None,
    diffusers_keys: bool = False,
) -> Path:
    """Writes the file, `metadata` beside what the loader needs, and returns its path."""
    vocabulary = tiny_vocabulary()
    parts = tiny_modules(seed, vae_levels)
    unet, vae, text = parts
    texts = {f"text_model.{k}": v for k, v in text.state_dict().items()}
    if diffusers_keys:
        tensors = {f"unet.{k}": v for k, v in unet.state_dict().items()}
        tensors |= {f"vae.{k}": v for k, v in vae.state_dict().items()}
        tensors |= {f"text_encoder.{k}": v for k, v in texts.items()}
    else:
        unet_map, vae_map = keymaps.unet_map(UNET), keymaps.vae_map(vae.config)
        tensors = {f"model.diffusion_model.{unet_map.to_ldm(k)}": v for k, v in unet.state_dict().items()}
        tensors |= {f"first_stage_model.{vae_map.to_ldm(k)}": _ldm(k, v) for k, v in vae.state_dict().items()}
        tensors |= {f"cond_stage_model.transformer.{k}": v for k, v in texts.items()}
    about = {
        "easel.unet": {"attention_head_dim": UNET["attention_head_dim"], "norm_num_groups": UNET["norm_num_groups"]},
        "easel.vae": {"norm_num_groups": 4},
        "easel.text_encoder": {"num_attention_heads": TEXT["num_attention_heads"]},
        "easel.tokenizer": vocabulary,
    }
    words = {"modelspec.resolution": "64x64", **{k: json.dumps(v) for k, v in about.items()}, **(metadata or {})}
    save_file({k: v.to(dtype).contiguous() for k, v in tensors.items()}, path, metadata=words)
    return path


def part_alone(checkpoint: Path, path: Path, prefix: str, *, keep: str = "") -> Path:
    """Writes what lies under `prefix` of a checkpoint as a file of its own, its names beginning with `keep` instead."""
    header, tensors = read_header(checkpoint), load_file(checkpoint)
    alone = {keep + name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    save_file(alone, path, dict(header.metadata))
    return path


def tiny_modules(seed: int = 0, vae_levels: int = 3) -> tuple[UNet2DConditionModel, AutoencoderKL, CLIPTextModel]:
    """The modules of such a checkpoint, in float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vocab = tiny_vocabulary()["vocab"]
        unet = UNet2DConditionModel(**UNET)
        blocks: dict[str, Any] = {  # diffusers annotates these as tuples of one
            "block_out_channels": (8,) * vae_levels,
            "down_block_types": ("DownEncoderBlock2D",) * vae_levels,
            "up_block_types": ("UpDecoderBlock2D",) * vae_levels,
        }
        vae = AutoencoderKL(layers_per_block=1, latent_channels=4, norm_num_groups=4, **blocks)
        ends = {"bos_token_id": vocab[START], "eos_token_id": vocab[END], "pad_token_id": vocab[END]}
        text = CLIPTextModel(CLIPTextConfig(vocab_size=len(vocab), **TEXT, **ends))
        _spread(text)
    return unet.eval(), vae.eval(), text.eval()


def tiny_vocabulary() -> dict[str, Any]:
    """Bytes, bytes that end a word, and WORDS, each with the merges that lead to it."""
    letters = list(_byte_alphabet().values())
    merges: list[str] = []
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            merges.append(f"{parts[0]} {parts[1]}")
            parts = [parts[0] + parts[1], *parts[2:]]
    merges = list(dict.fromkeys(merges))
    tokens = [*letters, *(c + "</w>" for c in letters), *(m.replace(" ", "") for m in merges), START, END]
    return {"vocab": {token: i for i, token in enumerate(dict.fromkeys(tokens))}, "merges": merges}


def _spread(text: nn.Module) -> None:
    """Token vectors far enough apart that prompts differ."""
    for name, parameter in text.named_parameters():
        if "token_embedding" in name:
            nn.init.normal_(parameter, std=0.5)


def _ldm(name: str, tensor: Tensor) -> Tensor:
    """LDM's autoencoders have 1x1 convolutions where diffusers has linear layers."""
    return tensor[:, :, None, None] if "attentions" in name and tensor.ndim == 2 else tensor
