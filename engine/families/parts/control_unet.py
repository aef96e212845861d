"""diffusers' ControlNetModel and ControlNetUnionModel: built on meta and called."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.controlnets.controlnet_union import ControlNetUnionModel
from torch import Tensor, nn

from engine.families.base import TextBatch
from engine.families.controls.base import Residuals, UnknownControlType
from engine.families.parts.layers import dense_weight


def build(config: Mapping[str, Any]) -> ControlNetModel | ControlNetUnionModel:
    """The skeleton on meta. Fields that only a UNet has are left out."""
    model = ControlNetUnionModel if "num_control_type" in config else ControlNetModel
    known = inspect.signature(model.__init__).parameters
    with torch.device("meta"):
        return model(**{name: value for name, value in config.items() if name in known})


def residuals(
    module: nn.Module, control_type: Sequence[int], x: Tensor, timesteps: Tensor, text: TextBatch, hint: Tensor
) -> Residuals:
    """control_type: which types of control the hint is, for a union; () leaves it to the net."""
    dtype = cast(Any, module).dtype
    common: dict[str, Any] = {
        "encoder_hidden_states": text.cross.to(dtype),
        "added_cond_kwargs": {k: v.to(dtype) if k != "time_ids" else v for k, v in added_conditions(text).items()},
        "return_dict": False,
    }
    x, hint = x.to(dtype), hint.to(dtype)
    if isinstance(module, ControlNetUnionModel):
        down, mid = _of_union(module, list(control_type), x, timesteps, hint, common)
    else:
        down, mid = module(x, timesteps, controlnet_cond=hint, **common)
    return {"down": list(down), "mid": [mid]}


def _of_union(
    module: ControlNetUnionModel, control_type: list[int], x: Tensor, timesteps: Tensor, hint: Tensor, common: Any
) -> tuple[Sequence[Tensor], Tensor]:
    """Without a type the hint is added as it is, and no type is told."""
    count = int(cast(Any, module.config).num_control_type)
    if any(kind >= count for kind in control_type):
        raise UnknownControlType(kind=max(control_type), count=count)
    types = torch.zeros(x.shape[0], count, dtype=x.dtype, device=x.device)
    types[:, control_type] = 1.0
    plain = _adding(module.conv_in, module.controlnet_cond_embedding(hint)) if not control_type else nullcontext()
    with plain:
        return module(
            x,
            timesteps,
            controlnet_cond=[hint] * len(control_type),
            control_type=types,
            control_type_idx=control_type,
            conditioning_scale=[1.0] * len(control_type),
            **common,
        )


@contextmanager
def _adding(layer: nn.Module, more: Tensor) -> Iterator[None]:
    def add(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output + more

    handle = layer.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def added_conditions(text: TextBatch) -> dict[str, Tensor]:
    """What SDXL's UNets are told of sizes and pooled text, where there is any."""
    if text.pooled is None or "time_ids" not in text.extra:
        return {}
    return {"text_embeds": text.pooled, "time_ids": text.extra["time_ids"]}


def add_shared(module: nn.Module, unet: nn.Module) -> None:
    """Of a file of differences: add the UNet's own weights to the layers that both have."""
    for name, weight in module.state_dict().items():
        layer, _, leaf = name.rpartition(".")
        try:
            theirs = unet.get_submodule(layer)
        except AttributeError:
            continue
        weight += (dense_weight(theirs) if leaf == "weight" else theirs.get_parameter(leaf)).to(weight)
