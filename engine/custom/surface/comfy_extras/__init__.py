"""`comfy_extras`: any of its modules, whose classes are the studio's nodes by class_type."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

from engine.custom.links import missing
from engine.custom.surface import nodes
from engine.sampling.noise import Noise


def __getattr__(name: str) -> ModuleType:
    """`from comfy_extras import nodes_mask`"""
    if name.startswith("nodes_"):
        return import_module(f"comfy_extras.{name}")
    raise missing("comfy_extras", name, "modules called nodes_...")


NOISES = {"Noise_RandomNoise": Noise, "Noise_EmptyNoise": partial(Noise, none=True)}  # values of NOISE links


class Extras(ModuleType):
    """`comfy_extras.nodes_mask` and the like."""

    def __getattr__(self, name: str) -> Any:
        if name in NOISES:
            return NOISES[name]
        if not name.startswith("__") and name in nodes.NODE_CLASS_MAPPINGS:
            return nodes.NODE_CLASS_MAPPINGS[name]
        raise missing(self.__name__, name, "the studio's nodes, by the class_type that GET /object_info lists")
