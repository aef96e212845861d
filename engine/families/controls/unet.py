"""ControlNets of UNets (https://arxiv.org/abs/2302.05543): Stable Diffusion 1 and 2, SDXL, on diffusers' classes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.families.controls.base import ControlNet, NotAControlNet, Residuals
from engine.families.discover import discover
from engine.families.parts.stored import StoredPart, json_metadata, same_name
from engine.families.parts.unet_kind import UNetFacts, UNetKind
from engine.weights import control_keys
from engine.weights.header import Header
from engine.weights.lora import title_of

if TYPE_CHECKING:
    import torch
    from torch import nn

    from engine.families.base import Model, TextBatch
    from engine.models.device import Device
    from engine.models.loaded import Loaded
    from engine.models.manager import ModelManager, ModelRef

# Of the config, what must be as in the UNet that it steers.
SAME = ("block_out_channels", "layers_per_block", "cross_attention_dim", "transformer_layers_per_block")
POOLED = ("_shuffle", "_shuffle_fp16")  # ends of the names of files whose control is one value a channel
UNION = "task_embedding"  # a net for several types of control has a vector for each


class UNetControl:
    def detect(self, header: Header) -> bool:
        return control_keys.control_prefix(header) is not None

    def load(
        self, manager: ModelManager, path: Path, base: Model | None = None, *, allow_pickle: bool = False
    ) -> ControlNet:
        from engine.weights.load import open_header

        header = open_header(path, allow_pickle=allow_pickle)
        prefix = control_keys.control_prefix(header) or ""
        tensors = header.under(prefix)
        kind = _kind_of(header, prefix)
        sizes = control_keys.control_config(tensors)
        config = {**sizes, **kind.unet(sizes), **json_metadata(header, "easel.unet")}
        config["global_pool_conditions"] = path.stem.endswith(POOLED)
        config["family"] = kind.spec.name
        if UNION in tensors:
            config["num_control_type"], config["num_trans_channel"] = tensors[UNION].shape
            config["num_trans_layer"] = sum(name.endswith(".attn.in_proj_weight") for name in tensors)
            config["num_proj_channel"] = tensors["spatial_ch_projs.weight"].shape[0]
        ldm = control_keys.is_ldm(tensors)
        rename = control_keys.control_map(config).to_diffusers if ldm else same_name
        title = title_of(path, header.metadata)
        part = StoredPart(header, "controlnet", prefix, config, rename, _build)
        if base is None or "difference" not in header:
            ref = part.register(manager, title)
        else:
            ref = _added_to(manager, part, title, base)
        factor = 2 ** (len(config["conditioning_embedding_out_channels"]) - 1)
        return ControlNet(self, ref, title, config, factor)

    def problem(self, net: ControlNet, model: Model) -> str:
        same = all(_plain(net.config.get(key)) == _plain(model.config.get(key)) for key in SAME)
        if same and net.config["family"] == model.family.spec.name:
            return ""
        title = discover()[net.config["family"]].SPEC.title
        return title if net.config["family"] != model.family.spec.name else f"{title} of other sizes"

    def numbers_said(self, net: ControlNet, cells: int) -> int:
        widths, layers = net.config["block_out_channels"], int(net.config["layers_per_block"])
        said = widths[0] * cells  # behind the first convolution
        for level, width in enumerate(widths):
            smaller = 0 if level == len(widths) - 1 else width * cells // 4 ** (level + 1)
            said += layers * width * cells // 4**level + smaller
        return said + widths[-1] * cells // 4 ** (len(widths) - 1)

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
        from engine.families.parts import control_unet

        return control_unet.residuals(module, net.options.get("control_type", ()), x, timesteps, text, hint)


KINDS = (UNetControl(),)


def _kind_of(header: Header, prefix: str) -> UNetKind:
    """The family of UNets whose first half the net is like."""
    tensors = header.under(prefix)
    first = tensors.get("input_blocks.0.0.weight") or tensors["conv_in.weight"]
    vector = tensors.get("label_emb.0.0.weight") or tensors.get("add_embedding.linear_1.weight")
    facts = UNetFacts(
        prefix=prefix,
        names="ldm" if control_keys.is_ldm(tensors) else "diffusers",
        in_channels=first.shape[1],
        context=next((t.shape[1] for name, t in tensors.items() if name.endswith(".attn2.to_k.weight")), 0),
        linear=any(name.endswith(".proj_in.weight") and len(t.shape) == 2 for name, t in tensors.items()),
        vector=vector.shape[1] if vector else 0,
        finest=any(name.startswith(("input_blocks.1.1.", "down_blocks.0.attentions.0.")) for name in tensors),
        last_norm="",
    )
    known = [kind for module in discover().values() if isinstance(kind := getattr(module, "KIND", None), UNetKind)]
    found = next((kind for kind in known if kind.fits(facts)), None)
    if found is None:
        names = ", ".join(kind.spec.title for kind in known)
        raise NotAControlNet(path=header.path, seems=f"one for text of width {facts.context}", known=names)
    return found


def _added_to(manager: ModelManager, part: StoredPart, title: str, base: Model) -> ModelRef:
    """A net of differences with the weights of the model that it is added to."""
    from engine.families.parts.precision import compute_dtype
    from engine.models.manager import ModelSpec

    stored = list(part.tensors.values())
    dtype = compute_dtype(manager.device, "controlnet", stored[0].dtype)

    def load(device: Device) -> Loaded:
        from engine.families.parts import control_unet, filling
        from engine.models.loaded import TorchModel

        module = filling.filled(part, dtype)
        with manager.lease(base.ref) as leased:
            control_unet.add_shared(module, leased[base.ref])
        return TorchModel(module)

    key = f"{part.header.digest}/controlnet/{dtype} + {base.ref.key}"
    nbytes = sum(math.prod(info.shape) for info in stored) * dtype.itemsize
    return manager.add(ModelSpec(key, "controlnet", title, nbytes, load))


def _build(config: Mapping[str, Any]) -> nn.Module:
    from engine.families.parts import control_unet

    return control_unet.build(config)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
