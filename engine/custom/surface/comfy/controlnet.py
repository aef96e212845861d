"""`comfy.controlnet`: ControlNets of the model folders by their paths."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from engine.custom.links import missing, node
from engine.custom.stands import stands_for
from engine.custom.surface.folder_paths import name_in
from engine.families.controls.base import ControlNet as _ControlNet

ControlNet = ControlBase = stands_for(_ControlNet, "comfy.controlnet.ControlNet", "comfy.controlnet.load_controlnet")


def __getattr__(name: str) -> Any:
    raise missing("comfy.controlnet", name, "load_controlnet, and ControlNet and ControlBase as types")


def load_controlnet(ckpt_path: str | os.PathLike[str], model: Any = None) -> Any:
    """What a CONTROL_NET link holds. `model` is for files that are differences."""
    name = name_in("controlnet", Path(ckpt_path))
    if model is None:
        return node("ControlNetLoader")(control_net_name=name)[0]
    return node("DiffControlNetLoader")(model=model, control_net_name=name)[0]
