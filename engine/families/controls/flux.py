"""ControlNets of Flux.1, on diffusers' class. Those of InstantX, Shakker Labs and their kin look at latents, one for
several types of control among them and one that is told a mask; XLabs' look at pixels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.families.controls.base import ControlNet, Residuals, of_other_model, said_by_blocks
from engine.families.flux import SPEC
from engine.families.parts.stored import StoredPart, same_name
from engine.weights.control_dit import flux_control_config, flux_control_map, is_flux_control, is_flux_maker
from engine.weights.header import Header
from engine.weights.lora import title_of
from engine.weights.quantised import settled

if TYPE_CHECKING:
    import torch
    from torch import nn

    from engine.families.base import Model, TextBatch
    from engine.models.manager import ModelManager

SAME = ("attention_head_dim", "num_attention_heads", "joint_attention_dim", "pooled_projection_dim")
CELLS = 4  # latent cells a token


class FluxControl:
    def detect(self, header: Header) -> bool:
        return is_flux_control(header)

    def load(
        self, manager: ModelManager, path: Path, base: Model | None = None, *, allow_pickle: bool = False
    ) -> ControlNet:
        from engine.weights.load import open_header

        header = settled(open_header(path, allow_pickle=allow_pickle))
        title, config = title_of(path, header.metadata), flux_control_config(header.tensors)
        cut = flux_control_map(config).cut(header, "") if is_flux_maker(header.tensors) else header
        ref = StoredPart(cut, "controlnet", "", config, same_name, build=_build, wide=True).register(manager, title)
        if config["conditioning_embedding_channels"] is not None:
            return ControlNet(self, ref, title, config)
        masked = config["hint_channels"] == (SPEC.latent.channels + 1) * CELLS
        return ControlNet(self, ref, title, config, latent=SPEC.latent, masked=masked)

    def problem(self, net: ControlNet, model: Model) -> str:
        return of_other_model(net, model, SPEC, SAME)

    def numbers_said(self, net: ControlNet, cells: int) -> int:
        return said_by_blocks(net, cells)

    def residuals(
        self,
        module: nn.Module,
        net: ControlNet,
        denoiser: nn.Module,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        text: TextBatch,
        hint: torch.Tensor,
    ) -> Residuals:
        from engine.families.parts.control_dit import flux_residuals

        return flux_residuals(module, denoiser, net.options.get("control_type", ()), x, timesteps, text, hint)


KINDS = (FluxControl(),)


def _build(config: Mapping[str, Any]) -> nn.Module:
    from engine.families.parts.control_dit import build_flux

    return build_flux(config)
