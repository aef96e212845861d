"""Stability AI's control LoRAs: ControlNets that say how they differ from the UNet that they steer, as low-rank pairs.

    weight = the UNet's weight + up @ down

Layers that a UNet does not have (the hint's, the ways out), norms and most biases lie in the file as they are; what it
lacks is the UNet's. So there is a net of its own for each model, made when that model is sampled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.families.controls.base import ControlNet
from engine.families.controls.unet import UNetControl
from engine.families.discover import discover
from engine.weights import control_keys
from engine.weights.header import Header
from engine.weights.lora import title_of

if TYPE_CHECKING:
    from engine.families.base import Model
    from engine.models.device import Device
    from engine.models.loaded import Loaded
    from engine.models.manager import ModelManager, ModelRef

UP, DOWN = ".up", ".down"


class ControlLora(UNetControl):
    def detect(self, header: Header) -> bool:
        return control_keys.CONTROL_LORA in header and super().detect(header)

    def load(
        self, manager: ModelManager, path: Path, base: Model | None = None, *, allow_pickle: bool = False
    ) -> ControlNet:
        """The model is that which is sampled, whatever `base` is."""
        from engine.models.manager import ModelRef
        from engine.weights.load import open_header

        header = open_header(path, allow_pickle=allow_pickle)
        title, config = title_of(path, header.metadata), control_keys.hint_config(header.tensors)
        factor = 2 ** (len(config["conditioning_embedding_out_channels"]) - 1)
        config["pairs"] = {
            name.removesuffix(UP): (info.shape[0], math.prod(header.tensors[name.removesuffix(UP) + DOWN].shape[1:]))
            for name, info in header.tensors.items()
            if name.endswith(UP) and name.removesuffix(UP) + DOWN in header
        }
        config["family"] = "sdxl" if any(name.startswith("label_emb.") for name in config["pairs"]) else ""
        made: dict[str, ControlNet] = {}

        def made_of(model: Model) -> ControlNet:
            if model.ref.key not in made:
                whole = {**model.config, **config}
                ref = _added_to(manager, header, title, whole, model)
                made[model.ref.key] = ControlNet(self, ref, title, whole, factor)
            return made[model.ref.key]

        nowhere = ModelRef(f"{header.digest}/controlnet", "controlnet", title)
        return ControlNet(self, nowhere, title, config, factor, made=made_of)

    def problem(self, net: ControlNet, model: Model) -> str:
        """Each pair must fit the layer of the model that it is for."""
        known = discover()[net.config["family"]].SPEC.title if net.config["family"] else "another UNet"
        if "down_block_types" not in model.config:
            return known
        names = control_keys.control_map({**model.config, **net.config})
        for name, (rows, columns) in net.config["pairs"].items():
            shape = model.modules.get(names.to_diffusers(name) or "")
            if shape is None or (shape[0], math.prod(shape[1:])) != (rows, columns):
                return known if model.family.spec.name != net.config["family"] else f"{known} of other sizes"
        return ""


KINDS = (ControlLora(),)


def _added_to(manager: ModelManager, header: Header, title: str, config: Mapping[str, Any], model: Model) -> ModelRef:
    from engine.families.parts import control_unet
    from engine.families.parts.precision import compute_dtype
    from engine.models.manager import ModelSpec

    stored = next((info.dtype for name, info in header.tensors.items() if name.endswith(UP)), "F16")
    dtype = compute_dtype(manager.device, "controlnet", stored)
    names, base = control_keys.control_map(config), model.ref
    nbytes = sum(tensor.numel() for tensor in control_unet.build(config).state_dict().values()) * dtype.itemsize

    def load(device: Device) -> Loaded:
        from engine.families.parts import control_lora
        from engine.models.loaded import TorchModel

        module = control_unet.build(config)
        with manager.lease(base) as leased:
            control_lora.fill(module, leased[base], header, names, dtype)
        return TorchModel(module)

    key = f"{header.digest}/controlnet/{dtype} + {base.key}"
    return manager.add(ModelSpec(key, "controlnet", title, nbytes, load))
