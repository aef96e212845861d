"""`comfy_api.latest.io`: schemas, nodes and socket types."""

from engine.custom.surface.comfy_api.latest import dynamic, schema, sockets
from engine.custom.surface.comfy_api.latest.dynamic import Autogrow, DynamicCombo, DynamicSlot, MatchType, MultiType
from engine.custom.surface.comfy_api.latest.options import (
    ControlAfterGenerate,
    FolderType,
    NumberDisplay,
    RemoteOptions,
    UploadType,
)
from engine.custom.surface.comfy_api.latest.schema import (
    ComfyNode,
    Hidden,
    HiddenHolder,
    NodeOutput,
    NodeReplace,
    Schema,
)
from engine.custom.surface.comfy_api.latest.sockets import (
    ComfyType,
    ComfyTypeI,
    ComfyTypeIO,
    Custom,
    Input,
    Output,
    WidgetInput,
    comfytype,
)

__all__ = [
    "Autogrow",
    "ComfyNode",
    "ComfyType",
    "ComfyTypeI",
    "ComfyTypeIO",
    "ControlAfterGenerate",
    "Custom",
    "DynamicCombo",
    "DynamicSlot",
    "FolderType",
    "Hidden",
    "HiddenHolder",
    "Input",
    "MatchType",
    "MultiType",
    "NodeOutput",
    "NodeReplace",
    "NumberDisplay",
    "Output",
    "RemoteOptions",
    "Schema",
    "UploadType",
    "WidgetInput",
    "comfytype",
    "dynamic",
    "schema",
    "sockets",
]


def __getattr__(name: str) -> type[ComfyType]:
    """Socket types."""
    return getattr(sockets, name)


def __dir__() -> list[str]:
    return [*globals(), *sockets.NAMES]
