"""diffusers' ControlNets of Flux and SD3: built on meta and called."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from diffusers.models.controlnets.controlnet_flux import FluxControlNetModel
from diffusers.models.controlnets.controlnet_sd3 import SD3ControlNetModel
from torch import Tensor, nn

from engine.families.base import TextBatch
from engine.families.controls.base import Residuals, UnknownControlType
from engine.families.parts.dit import conditions
from engine.families.parts.patches import PATCH, patches, places, to_whole_patches


def build_flux(config: Mapping[str, Any]) -> FluxControlNetModel:
    """The skeleton on meta. A hint may have more channels a token than the latent: a mask's."""
    with torch.device("meta"):
        net = FluxControlNetModel(**_known(FluxControlNetModel, config))
        net.controlnet_x_embedder = nn.Linear(config["hint_channels"], net.inner_dim)
    return net


def build_sd3(config: Mapping[str, Any]) -> SD3ControlNetModel:
    with torch.device("meta"):
        return SD3ControlNetModel(**_known(SD3ControlNetModel, config))


def flux_residuals(
    module: nn.Module,
    denoiser: nn.Module,
    control_type: Sequence[int],
    x: Tensor,
    time: Tensor,
    text: TextBatch,
    hint: Tensor,
) -> Residuals:
    """control_type: which types of control the hint is, for a union; () leaves it to the net. Written out like Flux'
    own forward, for its reasons."""
    net, model = cast(FluxControlNetModel, module), cast(Any, denoiser)
    dtype = net.x_embedder.bias.dtype
    padded = to_whole_patches(x, PATCH)
    hidden = net.x_embedder(patches(padded, PATCH).to(dtype))
    if net.input_hint_block is not None:
        hint = net.input_hint_block((hint * 2 - 1).to(dtype))
    hidden = hidden + net.controlnet_x_embedder(patches(to_whole_patches(hint, PATCH), PATCH).to(dtype))
    guidance = text.extra.get("guidance")
    pooled = text.cross.new_zeros(x.shape[0], 768) if text.pooled is None else text.pooled
    embedded = conditions(net.time_text_embed, time * 1000, None if guidance is None else guidance * 1000, pooled)
    tokens = net.context_embedder(text.cross.to(dtype))
    if net.union and control_type:
        count = net.controlnet_mode_embedder.num_embeddings
        if max(control_type) >= count:
            raise UnknownControlType(kind=max(control_type), count=count)
        types = torch.tensor(control_type, device=x.device).expand(x.shape[0], -1)
        tokens = torch.cat([net.controlnet_mode_embedder(types), tokens], dim=1)
    of_text = torch.zeros(tokens.shape[1], 3, device=x.device)
    of_picture = places(padded.shape[-2] // PATCH, padded.shape[-1] // PATCH, (0, 0, 0), x.device)
    rotary = net.pos_embed(torch.cat([of_text, of_picture]))
    double, single = [], []
    for block, out in zip(net.transformer_blocks, net.controlnet_blocks, strict=True):
        tokens, hidden = block(
            hidden_states=hidden, encoder_hidden_states=tokens, temb=embedded, image_rotary_emb=rotary
        )
        double.append(out(hidden))
    for block, out in zip(net.single_transformer_blocks, net.controlnet_single_blocks, strict=True):
        tokens, hidden = block(
            hidden_states=hidden, encoder_hidden_states=tokens, temb=embedded, image_rotary_emb=rotary
        )
        single.append(out(hidden))
    deal = _in_turn if net.input_hint_block is not None else _in_runs
    return {
        "double": deal(double, len(model.transformer_blocks)),
        "single": deal(single, len(model.single_transformer_blocks)),
    }


def sd3_residuals(
    module: nn.Module, denoiser: nn.Module, x: Tensor, timesteps: Tensor, text: TextBatch, hint: Tensor
) -> Residuals:
    """A net without a way in of its own takes the denoiser's, with the places of the tokens."""
    net, model = cast(SD3ControlNetModel, module), cast(Any, denoiser)
    dtype = net.pos_embed_input.proj.bias.dtype
    patch = cast(int, net.config["patch_size"])
    padded, hint = to_whole_patches(x, patch), to_whole_patches(hint, patch)
    if net.pos_embed is None:
        padded = model.pos_embed(padded.to(model.pos_embed.proj.bias.dtype))
    pooled = text.cross.new_zeros(x.shape[0], 2048) if text.pooled is None else text.pooled
    if net.config["force_zeros_for_pooled_projection"]:
        pooled = torch.zeros_like(pooled)
    said = net(
        hidden_states=padded.to(dtype),
        controlnet_cond=hint.to(dtype),
        encoder_hidden_states=cast(Any, None if net.context_embedder is None else text.cross.to(dtype)),
        pooled_projections=pooled.to(dtype),
        timestep=cast(Any, timesteps),
        return_dict=False,
    )[0]
    blocks, said = len(model.transformer_blocks), cast(Sequence[Tensor], said)
    every = max(1, blocks // len(said))  # of 23 for 24 blocks, each is for its own; the last block takes none
    return {"joint": [said[min(i // every, len(said) - 1)] for i in range(blocks)]}


def _in_runs(said: Sequence[Tensor], count: int) -> list[Tensor]:
    """One for each of `count` blocks: the first for the first few, the next for the next few."""
    return [said[i // math.ceil(count / len(said))] for i in range(count)] if said else []


def _in_turn(said: Sequence[Tensor], count: int) -> list[Tensor]:
    return [said[i % len(said)] for i in range(count)] if said else []


def _known(model: type[Any], config: Mapping[str, Any]) -> dict[str, Any]:
    names = inspect.signature(model.__init__).parameters
    return {name: value for name, value in config.items() if name in names}
