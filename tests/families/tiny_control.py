"""Random ControlNets for the tiny UNets of tiny.py and tiny_unets.py, in the layouts of real files.

path = make_tiny_control(tmp_path / "control.safetensors", layout="ldm")
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from safetensors.torch import save_file
from torch import nn

from engine.weights import control_keys
from tests.families.tiny import UNET

Layout = Literal["ldm", "bare", "diffusers"]
HINT = (8, 8, 16)  # two steps that halve: a hint of 4 pixels a cell; real ones have three


def about(of: Mapping[str, Any] = UNET) -> dict[str, str]:
    """What shapes do not tell of a net for a UNet of that config."""
    return {"easel.unet": json.dumps({name: of[name] for name in ("attention_head_dim", "norm_num_groups")})}


def tiny_control(seed: int = 0, of: Mapping[str, Any] = UNET, hint: tuple[int, ...] = HINT) -> ControlNetModel:
    """In float32; its way out is not zero, as it is before training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        half = {k: v for k, v in of.items() if k not in ("up_block_types", "out_channels")}
        net = ControlNetModel(**half, conditioning_embedding_out_channels=hint)
        for name, parameter in net.named_parameters():
            if name.startswith(("controlnet_down", "controlnet_mid", "controlnet_cond_embedding.conv_out")):
                nn.init.normal_(parameter, std=0.2)
    return net.eval()


def make_tiny_control(
    path: Path,
    *,
    seed: int = 0,
    layout: Layout = "ldm",
    dtype: torch.dtype = torch.float16,
    of: Mapping[str, Any] = UNET,
    hint: tuple[int, ...] = HINT,
) -> Path:
    net = tiny_control(seed, of, hint)
    tensors = net.state_dict()
    if layout != "diffusers":
        names = control_keys.control_map({**of, **net.config})
        prefix = "control_model." if layout == "ldm" else ""
        tensors = {f"{prefix}{names.to_ldm(name)}": tensor for name, tensor in tensors.items()}
        assert not any("None" in name for name in tensors)
    save_file({name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}, path, metadata=about(of))
    return path
