"""ControlNets of Stable Diffusion 3 and 3.5, on diffusers' class. All look at latents: those of InstantX and Alimama at
text and latent as well, Stability's own (blur, canny, depth; for 3.5 large) through the large model's way in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.families.controls.base import ControlNet, Residuals, of_other_model, said_by_blocks
from engine.families.parts.stored import StoredPart, same_name
from engine.families.sd3 import SPEC
from engine.weights.control_dit import is_sd3_control, is_stability, sd3_control_config, stability_map
from engine.weights.header import Header
from engine.weights.lora import title_of
from engine.weights.quantised import settled

if TYPE_CHECKING:
    import torch
    from torch import nn

    from engine.families.base import Model, TextBatch
    from engine.models.manager import ModelManager

SAME = ("attention_head_dim", "num_attention_heads", "patch_size", "joint_attention_dim", "pooled_projection_dim")
ALONE = ("attention_head_dim", "num_attention_heads", "patch_size", "pooled_projection_dim")  # it sees no text
UNSHIFTED = replace(SPEC.latent, shift=0.0)  # as those with text were trained
# What the nets of Stability were shown in training, as factor and offset of pixels in 0..1: the VAE saw edges as
# 255 * 0.5 + 0.5 instead of -1..1, and depth was dark where it is near.
LEVELS = {"canny": (255 / 4, 3 / 4), "depth": (-1.0, 1.0)}
TYPES = ("blur", "canny", "depth")  # by the number that a file may have
TYPE = "control_type"


class SD3Control:
    def detect(self, header: Header) -> bool:
        return is_sd3_control(header)

    def load(
        self, manager: ModelManager, path: Path, base: Model | None = None, *, allow_pickle: bool = False
    ) -> ControlNet:
        from engine.weights.load import open_header

        header = settled(open_header(path, allow_pickle=allow_pickle))
        title, config = title_of(path, header.metadata), sd3_control_config(header.tensors)
        cut = stability_map(config).cut(header, "") if is_stability(header.tensors) else header
        ref = StoredPart(cut, "controlnet", "", config, same_name, build=_build, wide=True).register(manager, title)
        if config["joint_attention_dim"] is None:
            levels = LEVELS.get(_type_of(header), (1.0, 0.0))
            return ControlNet(self, ref, title, config, latent=SPEC.latent, levels=levels)
        return ControlNet(self, ref, title, config, latent=UNSHIFTED, masked=config["extra_conditioning_channels"] == 1)

    def problem(self, net: ControlNet, model: Model) -> str:
        return of_other_model(net, model, SPEC, ALONE if net.config["joint_attention_dim"] is None else SAME)

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
        from engine.families.parts.control_dit import sd3_residuals

        return sd3_residuals(module, denoiser, x, timesteps, text, hint)


KINDS = (SD3Control(),)


def _type_of(header: Header) -> str:
    """What a net of Stability is for, by the number in its file, else by the file's name."""
    from engine.weights.load import read_tensors

    if TYPE in header:
        return TYPES[round(float(read_tensors(header, [TYPE])[TYPE].flatten()[0]))]
    return next((name for name in TYPES if name in header.path.stem.lower()), "")


def _build(config: Mapping[str, Any]) -> nn.Module:
    from engine.families.parts.control_dit import build_sd3

    return build_sd3(config)
