"""Flux' and SD3's transformers of diffusers: built on meta and called. Latents in, latents out; patches are made here.

Flux' own forward is written out rather than called: diffusers' casts the time to the type of the weights before it
multiplies it by 1000, which in bfloat16 moves it by up to 4, and has no way to leave the guidance out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from torch import Tensor, nn

from engine.families.controls.base import Residuals
from engine.families.parts.patches import PATCH, patches, places, to_whole_patches, unpatched
from engine.families.parts.style import over_picture


def build_flux(config: Mapping[str, Any]) -> FluxTransformer2DModel:
    with torch.device("meta"):
        return FluxTransformer2DModel(**config)


def build_sd3(config: Mapping[str, Any]) -> SD3Transformer2DModel:
    with torch.device("meta"):
        return SD3Transformer2DModel(**config)


@dataclass(frozen=True)
class Reference:
    """A latent that Flux Kontext sees beside the picture. `place`: where its tokens stand: (picture, y, x)."""

    latent: Tensor
    place: tuple[int, int, int]


def predict_flux(
    module: nn.Module,
    x: Tensor,
    time: Tensor,
    cross: Tensor,
    pooled: Tensor,
    guidance: Tensor | None,
    references: Sequence[Reference] = (),
    control: Residuals | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """x (batch, c, h, w) with what is concatenated to it, time (batch,) in 0..1 -> (batch, out, h, w). control:
    "double" and "single", for as many of the blocks, over the first tokens of the picture. bias: of attention, as
    `style.with_bias` makes it."""
    model = cast(FluxTransformer2DModel, module)
    dtype = model.x_embedder.bias.dtype
    height, width = x.shape[-2:]
    padded = to_whole_patches(x, PATCH)
    tokens = [patches(padded, PATCH)]
    ids = [places(padded.shape[-2] // PATCH, padded.shape[-1] // PATCH, (0, 0, 0), x.device)]
    for reference in references:
        latent = to_whole_patches(reference.latent.to(x), PATCH)
        tokens.append(patches(latent, PATCH))
        ids.append(places(latent.shape[-2] // PATCH, latent.shape[-1] // PATCH, reference.place, x.device))
    hidden = model.x_embedder(torch.cat(tokens, dim=1).to(dtype))
    embedded = conditions(model.time_text_embed, time * 1000, None if guidance is None else guidance * 1000, pooled)
    text = model.context_embedder(cross.to(dtype))
    rotary = model.pos_embed(torch.cat([torch.zeros(text.shape[1], 3, device=x.device), *ids]))
    attention = {} if bias is None else {"attention_mask": over_picture(bias, hidden.shape[1]).to(hidden)}
    for number, block in enumerate(model.transformer_blocks):
        text, hidden = _call(model, block, hidden, text, embedded, rotary, attention)
        hidden = _controlled(hidden, control, "double", number)
    for number, block in enumerate(model.single_transformer_blocks):
        text, hidden = _call(model, block, hidden, text, embedded, rotary, attention)
        hidden = _controlled(hidden, control, "single", number)
    hidden = hidden[:, : tokens[0].shape[1]]
    out = model.proj_out(model.norm_out(hidden, embedded))
    return unpatched(out, padded.shape[-2], padded.shape[-1], PATCH)[..., :height, :width]


def predict_sd3(
    module: nn.Module,
    x: Tensor,
    timesteps: Tensor,
    cross: Tensor,
    pooled: Tensor,
    control: Residuals | None = None,
) -> Tensor:
    """x (batch, c, h, w), timesteps (batch,) in 0..1000 -> (batch, c, h, w). control: "joint", for every block."""
    model = cast(SD3Transformer2DModel, module)
    dtype = model.context_embedder.bias.dtype
    height, width = x.shape[-2:]
    padded = to_whole_patches(x, cast(int, model.config["patch_size"]))
    out = model(
        hidden_states=padded.to(dtype),
        timestep=timesteps,
        encoder_hidden_states=cross.to(dtype),
        pooled_projections=pooled.to(dtype),
        block_controlnet_hidden_states=[r.to(dtype) for r in control["joint"]] if control else None,
        return_dict=False,
    )[0]
    return out[..., :height, :width]


def places_of(method: str, size: tuple[int, int], latents: Iterable[Tensor]) -> list[tuple[int, int, int]]:
    """Where reference latents stand beside a picture of `size` latent cells, for `Reference.place`.

    "index": each is a picture of its own. "offset": all are one further picture, each to the right of the others or
    below them, wherever it adds less to the longer side. "uxo": on the picture's own plane, along its diagonal (UNO).
    """
    found: list[tuple[int, int, int]] = []
    tall, wide = (side + side % PATCH for side in size) if method == "uxo" else (0, 0)
    for number, latent in enumerate(latents, 1):
        height, width = latent.shape[-2:]
        y = x = 0
        if method == "uxo":
            y, x = tall, wide
            tall, wide = tall + height, wide + width
        elif method == "offset":
            y, x = (0, wide) if height + tall > width + wide else (tall, 0)
            tall, wide = max(tall, height + y), max(wide, width + x)
        picture = {"uxo": 0, "index": number}.get(method, 1)
        found.append((picture, (y + PATCH // 2) // PATCH, (x + PATCH // 2) // PATCH))
    return found


def conditions(embedder: nn.Module, time: Tensor, guidance: Tensor | None, pooled: Tensor) -> Tensor:
    """(batch, width) of time, guidance (times 1000, where the model has it and it is given) and pooled text."""
    parts = cast(Any, embedder)
    dtype = parts.text_embedder.linear_1.bias.dtype
    embedded = parts.timestep_embedder(parts.time_proj(time).to(dtype))
    if guidance is not None and hasattr(parts, "guidance_embedder"):
        embedded = embedded + parts.guidance_embedder(parts.time_proj(guidance).to(dtype))
    return embedded + parts.text_embedder(pooled.to(dtype))


def _call(
    model: FluxTransformer2DModel,
    block: nn.Module,
    hidden: Tensor,
    text: Tensor,
    embedded: Tensor,
    rotary: Any,
    attention: Mapping[str, Any],
) -> tuple[Tensor, Tensor]:
    if torch.is_grad_enabled() and model.gradient_checkpointing:
        return cast(Any, model)._gradient_checkpointing_func(block, hidden, text, embedded, rotary, attention)
    return block(
        hidden_states=hidden,
        encoder_hidden_states=text,
        temb=embedded,
        image_rotary_emb=rotary,
        joint_attention_kwargs=attention,
    )


def _controlled(hidden: Tensor, control: Residuals | None, place: str, number: int) -> Tensor:
    residuals = control.get(place, ()) if control else ()
    if number >= len(residuals):
        return hidden
    residual = residuals[number].to(hidden)
    return torch.cat([hidden[:, : residual.shape[1]] + residual, hidden[:, residual.shape[1] :]], dim=1)
