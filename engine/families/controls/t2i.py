"""T2I adapters of UNets, on diffusers' class: small nets that look at the picture alone, once a run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.families.controls.base import ControlNet, Residuals
from engine.families.discover import discover
from engine.families.parts.stored import StoredPart
from engine.weights.header import Header
from engine.weights.lora import title_of
from engine.weights.t2i_keys import is_light, is_t2i, own_name, t2i_config

if TYPE_CHECKING:
    import torch
    from torch import nn

    from engine.families.base import Model, TextBatch
    from engine.models.manager import ModelManager

SMALL, LARGE = ("sd1", "sd2"), ("sdxl",)  # families whose UNets have the same levels, by the adapter's squares


class T2IAdapterControl:
    def detect(self, header: Header) -> bool:
        return is_t2i(header)

    def load(
        self, manager: ModelManager, path: Path, base: Model | None = None, *, allow_pickle: bool = False
    ) -> ControlNet:
        from engine.weights.load import open_header

        header = open_header(path, allow_pickle=allow_pickle)
        rename = partial(own_name, light=is_light(header.tensors))
        config = t2i_config({rename(name): info for name, info in header.tensors.items()})
        part = StoredPart(header, "controlnet", "", config, rename, build=_build)
        title = title_of(path, header.metadata)
        ref = part.register(manager, title)
        return ControlNet(self, ref, title, config, multiple=config["downscale_factor"], still=True)

    def problem(self, net: ControlNet, model: Model) -> str:
        families = LARGE if net.config["adapter_type"] == "full_adapter_xl" else SMALL
        title = discover()[families[0]].SPEC.title
        if model.family.spec.name not in families:
            return title
        ours, theirs = net.config["channels"], tuple(model.config["block_out_channels"])
        shared = min(len(ours), len(theirs))
        return "" if ours[:shared] == theirs[:shared] else f"{title} of other sizes"

    def numbers_said(self, net: ControlNet, cells: int) -> int:
        return sum(width * cells // 4**level for level, width in enumerate(net.config["channels"]))

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
        if net.config["in_channels"] == 1:
            hint = hint.mean(dim=1, keepdim=True)
        return {"intra": module(hint.to(next(module.parameters()).dtype))}


KINDS = (T2IAdapterControl(),)


def _build(config: Mapping[str, Any]) -> nn.Module:
    import torch
    from diffusers.models.adapter import T2IAdapter

    with torch.device("meta"):
        return T2IAdapter(**config)
