"""A ControlNet filled from low-rank pairs and the UNet that they are added to."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.families.parts.filling import MissingWeights, WrongShape
from engine.families.parts.layers import dense_weight
from engine.weights.header import Header
from engine.weights.keymaps import KeyMap
from engine.weights.load import read_tensors


def fill(module: nn.Module, unet: nn.Module, header: Header, names: KeyMap, dtype: torch.dtype) -> None:
    """A weight is the file's own, or the UNet's with `up @ down` of the file added, or the UNet's.
    Raises MissingWeights, WrongShape."""
    read = read_tensors(header, dtype=torch.float32)
    state: dict[str, Tensor] = {}
    for own, empty in module.state_dict().items():
        tensor = _weight(own, unet, read, names.to_ldm(own) or own)
        if tensor is None:
            raise MissingWeights(path=header.path, part="controlnet", count=1, name=own)
        if tensor.numel() != empty.numel():
            need, shape = tuple(empty.shape), tuple(tensor.shape)
            raise WrongShape(path=header.path, part="controlnet", name=own, shape=shape, need=need)
        state[own] = tensor.to(dtype).reshape(empty.shape)
    module.load_state_dict(state, assign=True)


def _weight(own: str, unet: nn.Module, read: dict[str, Tensor], name: str) -> Tensor | None:
    if name in read:
        return read[name]
    layer, _, leaf = own.rpartition(".")
    theirs = _layer(unet, layer)
    if theirs is None:
        return None
    tensor = dense_weight(theirs) if leaf == "weight" else theirs.get_parameter(leaf)
    up, down = (read.get(name.removesuffix(".weight") + side) for side in (".up", ".down"))
    if leaf != "weight" or up is None or down is None:
        return tensor.detach().cpu()
    return tensor.detach().cpu().float() + (up.flatten(1) @ down.flatten(1)).reshape(tensor.shape)


def _layer(unet: nn.Module, name: str) -> nn.Module | None:
    try:
        return unet.get_submodule(name)
    except AttributeError:
        return None
