"""Random Flux and SD3 transformers small enough for tests, and their tensors in the layouts that files have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from torch import Tensor, nn

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
    "pooled_projection_dim": 32,
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
    "joint_attention_dim": 96,
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
