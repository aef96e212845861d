"""Random ControlNets for the tiny Flux and SD3 of tiny_dit.py, and their tensors in the layouts of real files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.controlnets.controlnet_flux import FluxControlNetModel
from diffusers.models.controlnets.controlnet_sd3 import SD3ControlNetModel
from torch import Tensor, nn

from tests.families.tiny_dit import FLUX, SD3


def tiny_flux_control(hint_channels: int = 64, **changes: Any) -> FluxControlNetModel:
    config = {name: value for name, value in FLUX.items() if name != "out_channels"}
    net = _seeded(FluxControlNetModel, {**config, "num_layers": 1, **changes})
    if hint_channels != 64:
        wider = nn.Linear(hint_channels, net.inner_dim)
        wider.weight.data = torch.randn(wider.weight.shape, generator=torch.Generator().manual_seed(2)) * 0.1
        wider.bias.data.zero_()
        net.controlnet_x_embedder = wider
    return net


def tiny_sd3_control(**changes: Any) -> SD3ControlNetModel:
    return _seeded(SD3ControlNetModel, {**SD3, "num_layers": 1, **changes})


def tiny_stability() -> SD3ControlNetModel:
    """As Stability's for 3.5 large: it sees no text and has no way in of its own."""
    alone = {"joint_attention_dim": None, "use_pos_embed": False, "force_zeros_for_pooled_projection": False}
    return tiny_sd3_control(**alone, caption_projection_dim=128)


def xlabs_tensors(net: FluxControlNetModel) -> dict[str, Tensor]:
    """In BFL's names, with q, k and v in one, as XLabs' files are."""
    state = net.state_dict()
    renamed: dict[str, Tensor] = {}
    pairs = [("x_embedder", "img_in"), ("context_embedder", "txt_in"), ("controlnet_x_embedder", "pos_embed_input")]
    for ours, theirs in (("timestep", "time"), ("guidance", "guidance"), ("text", "vector")):
        pairs += [(f"time_text_embed.{ours}_embedder.linear_1", f"{theirs}_in.in_layer"),
                  (f"time_text_embed.{ours}_embedder.linear_2", f"{theirs}_in.out_layer")]  # fmt: skip
    hint = ["conv_in", *(f"blocks.{i}" for i in range(6)), "conv_out"]
    pairs += [(f"input_hint_block.{name}", f"input_hint_block.{2 * i}") for i, name in enumerate(hint)]
    for i in range(len(net.transformer_blocks)):
        new, old = f"transformer_blocks.{i}", f"double_blocks.{i}"
        pairs += [(f"controlnet_blocks.{i}", f"controlnet_blocks.{i}")]
        pairs += [(f"{new}.norm1.linear", f"{old}.img_mod.lin"), (f"{new}.norm1_context.linear", f"{old}.txt_mod.lin")]
        pairs += [(f"{new}.attn.to_out.0", f"{old}.img_attn.proj"), (f"{new}.attn.to_add_out", f"{old}.txt_attn.proj")]
        for ours, theirs in (("ff", "img_mlp"), ("ff_context", "txt_mlp")):
            pairs += [(f"{new}.{ours}.net.0.proj", f"{old}.{theirs}.0"), (f"{new}.{ours}.net.2", f"{old}.{theirs}.2")]
        for side, added in (("img", ""), ("txt", "added_")):
            for one, long in (("q", "query"), ("k", "key")):
                norm = state.pop(f"{new}.attn.norm_{added}{one}.weight")
                renamed[f"{old}.{side}_attn.norm.{long}_norm.scale"] = norm
            names = [f"add_{one}_proj" if added else f"to_{one}" for one in "qkv"]
            for leaf in ("weight", "bias"):
                parts = [state.pop(f"{new}.attn.{name}.{leaf}") for name in names]
                renamed[f"{old}.{side}_attn.qkv.{leaf}"] = torch.cat(parts)
    for ours, theirs in pairs:
        for leaf in ("weight", "bias"):
            if f"{ours}.{leaf}" in state:
                renamed[f"{theirs}.{leaf}"] = state.pop(f"{ours}.{leaf}")
    assert not state, list(state)
    return renamed


def stability_tensors(net: SD3ControlNetModel) -> dict[str, Tensor]:
    """As sd3.5_large_controlnet_*.safetensors name them."""
    pairs = {".attn.to_out.0": ".attn.proj", ".norm1.linear": ".adaLN_modulation.1", ".ff.net.0.proj": ".mlp.fc1",
             ".ff.net.2": ".mlp.fc2"}  # fmt: skip
    state, renamed = net.state_dict(), {}
    for name, tensor in state.items():
        if ".attn.to_q." in name:
            parts = [state[name.replace("to_q", f"to_{one}")] for one in "qkv"]
            renamed[name.replace("to_q", "qkv")] = torch.cat(parts)
        elif ".attn.to_k." not in name and ".attn.to_v." not in name:
            new = next((name.replace(a, b) for a, b in pairs.items() if a in name), name)
            renamed[new] = tensor
    return renamed


def _seeded(kind: type[Any], config: Mapping[str, Any]) -> Any:
    """Its ways out are not zero, as they are before training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        net = kind(**config)
        for parameter in net.parameters():
            nn.init.normal_(parameter, mean=1.0 if parameter.ndim == 1 and parameter.mean() > 0.5 else 0.0, std=0.1)
    return net.eval()
