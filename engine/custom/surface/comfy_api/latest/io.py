"""`comfy_api.latest.io`: schemas, nodes and socket types."""

from engine.custom.surface.comfy_api.latest import dynamic, schema, sockets
from engine.custom.surface.comfy_api.latest.dynamic import Autogrow, DynamicCombo, DynamicSlot, MatchType, MultiType
from engine.custom.surface.comfy_api.latest.schema import (
    ComfyNode,
    Hidden,
    HiddenHolder,
    NodeOutput,
    NodeReplace,
    Schema,
)
from engine.custom.surface.comfy_api.latest.sockets import *  # noqa: F403 - one socket type a line there

__all__ = [
    "Autogrow",
    "ComfyNode",
    "DynamicCombo",
    "DynamicSlot",
    "Hidden",
    "HiddenHolder",
    "MatchType",
    "MultiType",
    "NodeOutput",
    "NodeReplace",
    "Schema",
    "dynamic",
    "schema",
    "sockets",
]
