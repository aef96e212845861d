"""Random checkpoints of SD 2.x, SDXL and its refiner, small enough for tests, in the layouts that real ones have.

    path = make_tiny(tmp_path / "tiny.safetensors", SDXL)  # Stability's single files: LDM's names, OpenCLIP's
    path = make_tiny(tmp_path / "tiny.safetensors", SDXL, names="diffusers")
    path = make_tiny_folder(tmp_path / "tiny", SDXL)  # a folder of diffusers

Text encoders have as many layers as the real ones (CLIP-L but three): that is how one alone in a file is told.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from engine.families.parts.tokenizer import END, START
from engine.weights import keymaps
from tests.families.tiny import tiny_vocabulary

SIZE = 256


@dataclass(frozen=True)
class Encoder:
    name: str
    width: int
    layers: int
    prefix: str  # in LDM's layout
    part: str
    openclip: bool
    act: str = "gelu"


@dataclass(frozen=True)
class Tiny:
    """What a tiny model of a family is like."""

    encoders: tuple[Encoder, ...]
    attends: tuple[bool, ...]  # by level
    told: int = 0  # numbers beside the pooled text
    scale: float = 0.18215
    channels: int = 4
    depth: tuple[int, ...] = (1, 1, 1)


L = Encoder("l", 16, 3, "conditioner.embedders.0.transformer.", "text_encoder", False, "quick_gelu")
H = Encoder("h", 32, 24, "cond_stage_model.model.", "text_encoder", True)
G = Encoder("g", 32, 32, "conditioner.embedders.1.model.", "text_encoder_2", True)
SD2 = Tiny((H,), (True, True, False))
SDXL = Tiny((L, G), (False, True, True), told=6, scale=0.13025, depth=(1, 2, 3))
REFINER = Tiny(
    (replace(G, prefix="conditioner.embedders.0.model."),), (False, True, False), 5, 0.13025, depth=(1, 2, 2)
)


@dataclass(frozen=True)
class Modules:
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    texts: tuple[CLIPTextModel | CLIPTextModelWithProjection, ...]


@lru_cache(maxsize=8)
def tiny_unet_modules(tiny: Tiny, seed: int = 0) -> Modules:
    """The modules of such a checkpoint in float32, with weights that half precision keeps. Made once: change none."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(**unet_config(tiny))
        blocks: dict[str, Any] = {
            "block_out_channels": (8,) * 3,
            "down_block_types": ("DownEncoderBlock2D",) * 3,
            "up_block_types": ("UpDecoderBlock2D",) * 3,
        }
        vae = AutoencoderKL(layers_per_block=1, latent_channels=4, norm_num_groups=4, **blocks)
        texts = tuple(_text(encoder) for encoder in tiny.encoders)
    for module in (unet, vae, *texts):
        module.load_state_dict({name: t.half().float() for name, t in module.state_dict().items()})
    return Modules(unet.eval(), vae.eval(), texts)


def unet_config(tiny: Tiny) -> dict[str, Any]:
    pooled = tiny.encoders[-1].width
    told: dict[str, Any] = {}
    if tiny.told:
        told = {"addition_embed_type": "text_time", "addition_time_embed_dim": SIZE}
        told["projection_class_embeddings_input_dim"] = pooled + tiny.told * SIZE
    return {
        "in_channels": tiny.channels,
        "out_channels": 4,
        "block_out_channels": (8, 16, 16),
        "layers_per_block": 2,
        "down_block_types": tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in tiny.attends),
        "up_block_types": tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(tiny.attends)),
        "transformer_layers_per_block": tiny.depth,
        "cross_attention_dim": sum(encoder.width for encoder in tiny.encoders),
        "attention_head_dim": (2, 2, 2),
        "norm_num_groups": 4,
        "use_linear_projection": True,
        **told,
    }


def make_tiny(
    path: Path,
    tiny: Tiny,
    *,
    names: Literal["ldm", "diffusers"] = "ldm",
    seed: int = 0,
    metadata: dict[str, str] | None = None,
    marks: tuple[str, ...] = (),
) -> Path:
    """`marks`: names of empty tensors to add, such as "v_pred"."""
    parts = tiny_unet_modules(tiny, seed)
    tensors = ldm_tensors(tiny, parts) if names == "ldm" else diffusers_tensors(tiny, parts)
    tensors |= {name: torch.tensor([]) for name in marks}
    words = {"modelspec.resolution": "64x64", **told_in_metadata(tiny), **(metadata or {})}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: t.half().contiguous() for name, t in tensors.items()}, path, words)
    return path


def make_tiny_folder(path: Path, tiny: Tiny, scheduler: dict[str, Any] | None = None) -> Path:
    parts = tiny_unet_modules(tiny)
    parts.unet.save_pretrained(path / "unet")
    parts.vae.save_pretrained(path / "vae")
    for encoder, text in zip(tiny.encoders, parts.texts, strict=True):
        text.save_pretrained(path / encoder.part)
    if scheduler is not None:
        (path / "scheduler").mkdir()
        (path / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    return path


def ldm_tensors(tiny: Tiny, parts: Modules) -> dict[str, Tensor]:
    unet, vae = keymaps.unet_map(unet_config(tiny)), keymaps.vae_map(parts.vae.config)
    tensors = {f"model.diffusion_model.{unet.to_ldm(k)}": v for k, v in parts.unet.state_dict().items()}
    for name, tensor in parts.vae.state_dict().items():
        convolution = "attentions" in name and tensor.ndim == 2
        tensors[f"first_stage_model.{vae.to_ldm(name)}"] = tensor[:, :, None, None] if convolution else tensor
    for encoder, text in zip(tiny.encoders, parts.texts, strict=True):
        state = openclip_tensors(text) if encoder.openclip else transformers_tensors(text)
        tensors |= {f"{encoder.prefix}{name}": tensor for name, tensor in state.items()}
    return tensors


def diffusers_tensors(tiny: Tiny, parts: Modules) -> dict[str, Tensor]:
    tensors = {f"unet.{k}": v for k, v in parts.unet.state_dict().items()}
    tensors |= {f"vae.{k}": v for k, v in parts.vae.state_dict().items()}
    for encoder, text in zip(tiny.encoders, parts.texts, strict=True):
        tensors |= {f"{encoder.part}.{name}": tensor for name, tensor in transformers_tensors(text).items()}
    return tensors


def transformers_tensors(text: torch.nn.Module) -> dict[str, Tensor]:
    """In the names of files: `text_model.…`, and the projection outside."""
    state = {name.removeprefix("text_model."): tensor for name, tensor in text.state_dict().items()}
    return {n if n.startswith("text_projection") else f"text_model.{n}": t for n, t in state.items()}


def openclip_tensors(text: torch.nn.Module) -> dict[str, Tensor]:
    """OpenCLIP's names, the projections of attention in one piece, the pooled one as a matrix."""
    state = {name.removeprefix("text_model."): tensor for name, tensor in text.state_dict().items()}
    tensors = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
        "text_projection": state["text_projection.weight"].T,
        "logit_scale": torch.tensor(4.6),
    }
    layers = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("encoder.layers."))
    for i in range(layers):
        old, new = f"encoder.layers.{i}", f"transformer.resblocks.{i}"
        for leaf in ("weight", "bias"):
            qkv = [state[f"{old}.self_attn.{p}_proj.{leaf}"] for p in "qkv"]
            tensors[f"{new}.attn.in_proj_{leaf}"] = torch.cat(qkv)
            tensors[f"{new}.attn.out_proj.{leaf}"] = state[f"{old}.self_attn.out_proj.{leaf}"]
            tensors[f"{new}.mlp.c_fc.{leaf}"] = state[f"{old}.mlp.fc1.{leaf}"]
            tensors[f"{new}.mlp.c_proj.{leaf}"] = state[f"{old}.mlp.fc2.{leaf}"]
            tensors[f"{new}.ln_1.{leaf}"] = state[f"{old}.layer_norm1.{leaf}"]
            tensors[f"{new}.ln_2.{leaf}"] = state[f"{old}.layer_norm2.{leaf}"]
    return tensors


def told_in_metadata(tiny: Tiny) -> dict[str, str]:
    """What the shapes of a tiny model do not tell as those of a real one would."""
    about: dict[str, Any] = {
        "easel.unet": {"attention_head_dim": [2, 2, 2], "norm_num_groups": 4},
        "easel.vae": {"norm_num_groups": 4},
        "easel.tokenizer": tiny_vocabulary(),
    }
    return {k: json.dumps(v) for k, v in about.items()} | {
        f"easel.{encoder.part}": json.dumps({"num_attention_heads": 4}) for encoder in tiny.encoders
    }


def _text(encoder: Encoder) -> CLIPTextModel | CLIPTextModelWithProjection:
    vocab = tiny_vocabulary()["vocab"]
    config = CLIPTextConfig(
        vocab_size=len(vocab),
        hidden_size=encoder.width,
        intermediate_size=2 * encoder.width,
        projection_dim=encoder.width,
        num_hidden_layers=encoder.layers,
        num_attention_heads=4,
        max_position_embeddings=77,
        hidden_act=encoder.act,
        bos_token_id=vocab[START],
        eos_token_id=vocab[END],
        pad_token_id=vocab[END],
    )
    text = (CLIPTextModelWithProjection if encoder.openclip else CLIPTextModel)(config)
    for name, parameter in text.named_parameters():
        if "token_embedding" in name:
            torch.nn.init.normal_(parameter, std=0.5)
        elif "text_projection" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return text.eval()
