"""Tiny Flux and SD3: files with all parts, and those parts for diffusers' pipelines."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_vae_checkpoint,
    convert_sd3_transformer_checkpoint_to_diffusers,
)
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer, PreTrainedTokenizerFast

from engine.families.parts import t5_tokenizer
from engine.families.parts.tokenizer import MERGES, clip_tokenizer
from tests.families.tiny_dit import (
    FLUX,
    SD3_TEXT,
    SD35,
    ae_tensors,
    clip_tensors,
    in_file_layout,
    t5_tensors,
    tiny_ae,
    tiny_clip,
    tiny_t5,
)
from tests.pipelines.checkpoints import drawn, load
from tests.pipelines.running import Studio, noise

LEVELS = 4  # of the autoencoder: 8 pixels a cell
WIDTH, HEIGHT = 128, 96
SHAPE = (1, 16, HEIGHT // 8, WIDTH // 8)


def make_flux(studio: Studio, name: str, **changes: Any) -> dict[str, Any]:
    """All in one file. diffusers' converter knows the real sizes alone, so the transformer's weights come straight from
    the module; that our names are those of real files is what the recorded cases show (tests/parity)."""
    module = FluxTransformer2DModel(**{**FLUX, **changes})
    module.load_state_dict(drawn(module.state_dict(), seed=1))
    clip, t5 = tiny_clip("l"), tiny_t5()
    clip.load_state_dict(drawn(clip.state_dict(), seed=2))
    t5.load_state_dict(tied(drawn(t5.state_dict(), seed=3)))
    ae = autoencoder(4, scaling_factor=0.3611, shift_factor=0.1159)
    tensors = in_file_layout(module, "model.diffusion_model.") | ae_tensors(ae, "vae.")
    tensors |= clip_tensors(clip, "text_encoders.clip_l.transformer.")
    tensors |= t5_tensors(t5, "text_encoders.t5xxl.transformer.")
    write(tensors, studio.path("checkpoints", name))
    return {
        "transformer": module.eval(),
        "vae": ae,
        "text_encoder": clip,
        "tokenizer": clip_words(studio.workspace.root / "clip"),
        "text_encoder_2": t5,
        "tokenizer_2": t5_words(studio.workspace.root / "t5.json"),
    }


def make_sd3(studio: Studio, name: str, *, with_t5: bool = True) -> dict[str, Any]:
    """SD 3.5 medium's kind, all in one file, read by diffusers' converter. Without T5 tokens have their real width."""
    config = {**SD35, "joint_attention_dim": SD3_TEXT if with_t5 else 4096}
    torch.manual_seed(0)
    module = SD3Transformer2DModel(**config)
    clips = {key: projected(key) for key in ("l", "g")}
    t5 = tiny_t5(SD3_TEXT)
    t5.load_state_dict(tied(drawn(t5.state_dict(), seed=3)))
    ae = autoencoder(5, scaling_factor=1.5305, shift_factor=0.0609)
    tensors = drawn(in_file_layout(module, "model.diffusion_model."), seed=1)
    tensors |= ae_tensors(ae, "first_stage_model.")
    tensors |= t5_tensors(t5, "text_encoders.t5xxl.transformer.") if with_t5 else {}
    for key, clip in clips.items():
        tensors |= {f"text_encoders.clip_{key}.transformer.{n}": tensor for n, tensor in clip.state_dict().items()}
    write(tensors, studio.path("checkpoints", name))
    return {
        "transformer": load(module, convert_sd3_transformer_checkpoint_to_diffusers(denoiser(tensors))),
        "vae": ae,
        "text_encoder": clips["l"],
        "tokenizer": clip_words(studio.workspace.root / "clip"),
        "text_encoder_2": clips["g"],
        "tokenizer_2": clip_words(studio.workspace.root / "clip_g", "!"),
        "text_encoder_3": t5 if with_t5 else None,
        "tokenizer_3": t5_words(studio.workspace.root / "t5.json") if with_t5 else None,
    }


def denoiser(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name.startswith("model.diffusion_model.")}


def projected(key: str) -> CLIPTextModelWithProjection:
    plain = tiny_clip(key)
    clip = CLIPTextModelWithProjection(
        CLIPTextConfig(**{**plain.config.to_dict(), "projection_dim": plain.config.hidden_size})
    )
    state = drawn(clip.state_dict(), seed=plain.config.num_hidden_layers)
    if key == "l":  # SD3 takes CLIP-L's pooled text as it is
        state["text_projection.weight"] = torch.eye(plain.config.hidden_size)
    clip.load_state_dict(state)
    return clip.eval()


def autoencoder(seed: int, **config: Any) -> AutoencoderKL:
    """Its distribution is so narrow that a draw, which pipelines take, is the mean, which we take. Read by diffusers'
    converter from what is in the file."""
    plain = tiny_ae(LEVELS)
    state = drawn(plain.state_dict(), seed)
    state["encoder.conv_out.weight"][16:] = 0.0
    state["encoder.conv_out.bias"][16:] = -30.0
    plain.load_state_dict(state)
    ae = tiny_ae(LEVELS, **config)
    return load(ae, convert_ldm_vae_checkpoint(ae_tensors(plain), dict(ae.config)))


def tied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """T5 has its vectors under two names."""
    return {n: state["shared.weight"] if n == "encoder.embed_tokens.weight" else t for n, t in state.items()}


def write(tensors: dict[str, Tensor], path: Path) -> None:
    save_file({name: tensor.detach().float().contiguous() for name, tensor in tensors.items()}, path)


def clip_words(folder: Path, pad_token: str = "<|endoftext|>") -> CLIPTokenizer:
    """OpenAI's, by transformers."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(clip_tokenizer().vocab))
    (folder / "merges.txt").write_bytes(gzip.decompress(MERGES.read_bytes()))
    return CLIPTokenizer.from_pretrained(folder, pad_token=pad_token, model_max_length=77)


def t5_words(path: Path) -> PreTrainedTokenizerFast:
    path.write_bytes(gzip.decompress(t5_tokenizer.FILE.read_bytes()))
    return PreTrainedTokenizerFast(tokenizer_file=str(path), pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def flow(**settings: Any) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(**settings)


def flux_latent(pipe: Any, prompt: str, steps: int = 4, **settings: Any) -> Tensor:
    """In the VAE's scale, as ours; begun with the noise that ours begins with."""
    pipe.set_progress_bar_config(disable=True)
    given = pipe._pack_latents(noise(*SHAPE), 1, 16, HEIGHT // 8, WIDTH // 8)
    usual = {"height": HEIGHT, "width": WIDTH, "max_sequence_length": 256, "output_type": "latent", "latents": given}
    packed = pipe(prompt=prompt, num_inference_steps=steps, **(usual | settings)).images
    latent = pipe._unpack_latents(packed, HEIGHT, WIDTH, pipe.vae_scale_factor)
    return latent / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor
