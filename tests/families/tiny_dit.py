"""Random Flux and SD3 transformers small enough for tests, and their tensors in the layouts that files have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from engine.weights import keymaps
from engine.weights.dit import flux_map, sd3_map
from engine.weights.fused import FusedMap

FLUX: dict[str, Any] = {
    "in_channels": 64,
    "out_channels": 64,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": 48,
    "pooled_projection_dim": 24,
    "guidance_embeds": True,
    "axes_dims_rope": (4, 14, 14),
}
SD3: dict[str, Any] = {
    "sample_size": 32,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 2,
    "attention_head_dim": 64,
    "num_attention_heads": 2,
    "joint_attention_dim": 48,
    "caption_projection_dim": 128,
    "pooled_projection_dim": 64,
    "pos_embed_max_size": 16,
}
SD35: dict[str, Any] = {**SD3, "dual_attention_layers": (0,), "qk_norm": "rms_norm"}


def tiny_flux(seed: int = 0, **changes: Any) -> FluxTransformer2DModel:
    return _seeded(FluxTransformer2DModel, seed, {**FLUX, **changes})


def tiny_sd3(seed: int = 0, config: Mapping[str, Any] = SD3) -> SD3Transformer2DModel:
    return _seeded(SD3Transformer2DModel, seed, config)


def in_file_layout(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """The module's tensors as BFL's or Stability's files have them."""
    config = dict(module.config)  # type: ignore[arg-type]
    layout = flux_map(config) if isinstance(module, FluxTransformer2DModel) else sd3_map(config)
    state = module.state_dict()
    return {prefix + name: tensor for name, tensor in as_in_file(state, layout).items()}


def as_in_file(state: Mapping[str, Tensor], layout: FusedMap) -> dict[str, Tensor]:
    done: dict[str, Tensor] = {}
    rest = dict(state)
    for layer, parts in layout.fused.items():
        for leaf in ("weight", "bias"):
            if f"{parts[0].module}.{leaf}" not in rest:
                continue
            rows = [_unpicked(rest.pop(f"{part.module}.{leaf}"), part.rows) for part in parts]
            done[f"{layer}.{leaf}"] = torch.cat(rows)
    for name, tensor in rest.items():
        old = layout.plain.to_ldm(name)
        assert old is not None, name
        done[old.replace("_norm.weight", "_norm.scale") if "query_norm" in old or "key_norm" in old else old] = tensor
    return done


def _unpicked(tensor: Tensor, rows: tuple[tuple[int, int], ...]) -> Tensor:
    """The runs of rows back in the order that they have in the file."""
    parts = tensor.split([end - start for start, end in rows])
    return torch.cat([part for _, part in sorted(zip(rows, parts, strict=True), key=lambda pair: pair[0])])


def _seeded(kind: type[Any], seed: int, config: Mapping[str, Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = kind(**config)
        for parameter in module.parameters():  # norms start at one and some biases at zero: a mix-up would not show
            if parameter.ndim == 1:
                nn.init.normal_(parameter, mean=1.0 if parameter.mean() > 0.5 else 0.0, std=0.1)
    return module.eval()


def tiny_clip(name: str) -> CLIPTextModel:
    """A CLIP-L or CLIP-G: told apart by their depth, and with as many heads as those have."""
    width, layers, heads, act = {"l": (24, 2, 12, "quick_gelu"), "g": (40, 25, 20, "gelu")}[name]
    config = CLIPTextConfig(
        hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers, num_attention_heads=heads,
        hidden_act=act, vocab_size=49408, bos_token_id=49406, eos_token_id=49407, pad_token_id=49407,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(len(name) + layers)
        model = CLIPTextModel(config).eval()
        nn.init.normal_(model.embeddings.token_embedding.weight, std=0.5)
    return model


def tiny_t5(width: int = 48) -> T5EncoderModel:
    config = T5Config(vocab_size=32128, d_model=width, d_kv=8, d_ff=64, num_heads=4, num_layers=2, dropout_rate=0.0,
                      relative_attention_num_buckets=8, feed_forward_proj="gated-gelu")  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return T5EncoderModel(config).eval()


def tiny_ae(levels: int = 2, **config: Any) -> AutoencoderKL:
    blocks: dict[str, Any] = {  # diffusers annotates these as tuples of one
        "block_out_channels": (32,) * levels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        **config,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return AutoencoderKL(layers_per_block=1, latent_channels=16, use_quant_conv=False, use_post_quant_conv=False,
                             **blocks).eval()  # fmt: skip


def clip_tensors(model: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    return {f"{prefix}text_model.{name}": tensor for name, tensor in model.state_dict().items()}


def t5_tensors(model: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in model.state_dict().items() if "embed_tokens" not in name}


def ae_tensors(model: AutoencoderKL, prefix: str = "") -> dict[str, Tensor]:
    names = keymaps.vae_map(model.config)
    done: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        attention = "attentions" in name and tensor.ndim == 2
        done[f"{prefix}{names.to_ldm(name)}"] = tensor[:, :, None, None] if attention else tensor
    return done


def save(tensors: Mapping[str, Tensor], path: Path, dtype: torch.dtype | None = torch.float16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cast = {name: (t.to(dtype) if dtype and t.is_floating_point() else t).contiguous() for name, t in tensors.items()}
    save_file(cast, path)
    return path


def make_flux_checkpoint(path: Path, module: nn.Module | None = None) -> Path:
    """All in one file, as flux1-dev-fp8 has it."""
    tensors = in_file_layout(module or tiny_flux(), "model.diffusion_model.")
    tensors |= clip_tensors(tiny_clip("l"), "text_encoders.clip_l.transformer.")
    tensors |= t5_tensors(tiny_t5(), "text_encoders.t5xxl.transformer.")
    return save(tensors | ae_tensors(tiny_ae(), "vae."), path)


SD3_TEXT = 96  # T5's width of the checkpoint below: the two CLIPs side by side, 24 and 40, fit into it


def tiny_projection() -> Tensor:
    """CLIP-G's, of its pooled text."""
    return torch.randn(40, 40, generator=torch.Generator().manual_seed(11))


def make_sd3_checkpoint(path: Path, config: Mapping[str, Any] = SD3, encoders: tuple[str, ...] = ("l", "g", "t5")):
    """All in one file, as sd3_medium_incl_clips_t5xxlfp8 has it; without text encoders, as sd3_medium."""
    tensors = in_file_layout(tiny_sd3(config={**config, "joint_attention_dim": SD3_TEXT}), "model.diffusion_model.")
    for name in encoders:
        if name == "t5":
            tensors |= t5_tensors(tiny_t5(SD3_TEXT), "text_encoders.t5xxl.transformer.")
        else:
            tensors |= clip_tensors(tiny_clip(name), f"text_encoders.clip_{name}.transformer.")
    if "g" in encoders:
        tensors["text_encoders.clip_g.transformer.text_projection.weight"] = tiny_projection()
    return save(tensors | ae_tensors(tiny_ae(), "first_stage_model."), path)
