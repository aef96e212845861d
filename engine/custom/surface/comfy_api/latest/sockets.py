"""Socket types of V3 schemas: what an input or output is, and what of it an editor is told.

A type is a row of SOCKETS. What its inputs take, in the order in which packs may write it, is a row as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, ClassVar, Self, TypeVar

from engine.custom.links import missing
from engine.custom.plain import plain
from engine.custom.surface.comfy_api.latest.options import RemoteOptions, UploadType

Kind = TypeVar("Kind", bound="type[ComfyType]")

_FIRST = ("display_name", "optional", "tooltip", "lazy")
_LAST = ("extra_dict", "raw_link", "advanced")
_WIDGET = ("socketless", "widget_type", "force_input")
# What editors call an option where it is not what packs call it.
_WIRE = {
    "raw_link": "rawLink",
    "force_input": "forceInput",
    "widget_type": "widgetType",
    "dynamic_prompts": "dynamicPrompts",
    "display_mode": "display",
}


class Input:
    """One input. `kind` is [type, options] as /object_info shows it; an option without a row here is handed on."""

    io_type: ClassVar[str] = "*"
    takes: ClassVar[tuple[str, ...]] = (*_FIRST, *_LAST)

    def __init__(self, id: str, *given: Any, **named: Any) -> None:
        placed = dict(zip(self.takes, given, strict=False))
        twice = placed.keys() & named.keys()
        if twice or len(given) > len(self.takes):
            raise TypeError(f"the input {id!r} takes {', '.join(self.takes)}, each once")
        values = {**placed, **named}
        self.id = id
        self.optional = bool(values.pop("optional", False))
        extra: Mapping[str, Any] = values.pop("extra_dict", None) or {}
        self.default = values.get("default")
        self.options = {_WIRE.get(name, name): value for name, value in self.shaped(values).items()} | dict(extra)

    def shaped(self, values: dict[str, Any]) -> dict[str, Any]:
        """The options as an editor is told them."""
        return values

    @property
    def kind(self) -> list[Any]:
        return [self.get_io_type(), self.as_dict()]

    def get_io_type(self) -> str:
        return self.io_type

    def as_dict(self) -> dict[str, Any]:
        return {name: plain(value) for name, value in self.options.items() if value is not None}

    def get_all(self) -> list[Self]:
        return [self]


class WidgetInput(Input):
    """An input that has a widget in the editor."""

    takes = (*_FIRST, "default", *_WIDGET, *_LAST)


class _Number(WidgetInput):
    takes = (
        *_FIRST, "default", "min", "max", "step", "control_after_generate", "display_mode", "socketless", "force_input",
        *_LAST,
    )  # fmt: skip


class _Text(WidgetInput):
    takes = (*_FIRST, "multiline", "placeholder", "default", "dynamic_prompts", "socketless", "force_input", *_LAST)

    def shaped(self, values: dict[str, Any]) -> dict[str, Any]:
        return {**values, "multiline": values.get("multiline") or None}


class _Switch(WidgetInput):
    takes = (*_FIRST, "default", "label_on", "label_off", "socketless", "force_input", *_LAST)


class _Choice(WidgetInput):
    takes = (
        "options", *_FIRST, "default", "control_after_generate", "upload", "image_folder", "remote", "socketless",
        *_LAST,
    )  # fmt: skip

    def shaped(self, values: dict[str, Any]) -> dict[str, Any]:
        choices: Iterable[Any] = values.get("options") or ()
        upload: UploadType | None = values.pop("upload", None)
        remote: RemoteOptions | None = values.pop("remote", None)
        told = {**values, "options": [_plain(one) for one in choices], "default": _plain(values.get("default"))}
        return told | ({str(upload): True} if upload else {}) | ({"remote": remote.as_dict()} if remote else {})


class _Choices(_Choice):
    """Several of the choices at once: a list."""

    takes = ("options", *_FIRST, "default", "placeholder", "chip", "control_after_generate", "socketless", *_LAST)

    def shaped(self, values: dict[str, Any]) -> dict[str, Any]:
        shown = {name: values.pop(name) for name in ("placeholder", "chip") if values.get(name)}
        values.pop("chip", None)
        return {**super().shaped(values), "multiselect": True, "multi_select": shown or None}


class _OnlyWidget(WidgetInput):
    """Nothing can be connected to it."""

    def shaped(self, values: dict[str, Any]) -> dict[str, Any]:
        return {"socketless": True, **values}


def _plain(choice: Any) -> Any:
    return choice.value if isinstance(choice, Enum) else choice


class Output:
    io_type: ClassVar[str] = "*"

    def __init__(
        self,
        id: str | None = None,
        display_name: str | None = None,
        tooltip: str | None = None,
        is_output_list: bool = False,
    ) -> None:
        self.id = id
        self.display_name = display_name
        self.tooltip = tooltip
        self.is_output_list = is_output_list

    def get_io_type(self) -> str:
        return self.io_type


class ComfyType:
    """A socket type. Its `Input` and `Output` know it."""

    io_type: ClassVar[str] = "*"
    Type: ClassVar[Any] = Any
    Input: ClassVar[type[Input]] = Input
    Output: ClassVar[type[Output]] = Output


ComfyTypeI = ComfyTypeIO = ComfyType


def comfytype(io_type: str, **_: Any) -> Any:
    """Makes a class a socket type of that name."""

    def named(cls: Kind) -> Kind:
        cls.io_type = io_type
        cls.Input = type("Input", (cls.Input,), {"io_type": io_type})
        cls.Output = type("Output", (cls.Output,), {"io_type": io_type})
        return cls

    return named


def Custom(io_type: str) -> type[ComfyType]:
    """A socket type of a pack's own."""
    return _socket(io_type.title().replace("_", ""), io_type, Input)


def _socket(name: str, io_type: str, made_of: type[Input]) -> type[ComfyType]:
    return comfytype(io_type)(type(name, (ComfyType,), {"Input": made_of}))


# By what their inputs are: "Name=IO_TYPE", or the name alone where the type is the name in capitals.
SOCKETS: Mapping[type[Input], str] = {
    _Number: "Int Float",
    _Text: "String",
    _Switch: "Boolean",
    _Choice: "Combo",
    _Choices: "MultiCombo=COMBO",
    _OnlyWidget: "Color BoundingBox=BOUNDING_BOX BoundingBoxes=BOUNDING_BOXES Curve ImageCompare",
    WidgetInput: "Webcam",
    Input: """
        AnyType=* Image Mask Latent Conditioning Model Clip Vae Sampler Sigmas Noise Guider Audio Video SVG Histogram
        ControlNet=CONTROL_NET ClipVision=CLIP_VISION ClipVisionOutput=CLIP_VISION_OUTPUT StyleModel=STYLE_MODEL Gligen
        UpscaleModel=UPSCALE_MODEL LatentUpscaleModel=LATENT_UPSCALE_MODEL LoraModel=LORA_MODEL LossMap=LOSS_MAP
        ModelPatch=MODEL_PATCH AudioEncoder=AUDIO_ENCODER AudioEncoderOutput=AUDIO_ENCODER_OUTPUT Voxel Mesh Hooks
        HookKeyframes=HOOK_KEYFRAMES TimestepsRange=TIMESTEPS_RANGE LatentOperation=LATENT_OPERATION Photomaker Point
        FlowControl=FLOW_CONTROL Accumulation FaceAnalysis=FACE_ANALYSIS BBOX SEGS Tracks Load3D=LOAD_3D
        Load3DAnimation=LOAD_3D_ANIMATION Load3DCamera=LOAD3D_CAMERA WanCameraEmbedding=WAN_CAMERA_EMBEDDING
    """,
}


def _all_sockets() -> dict[str, type[ComfyType]]:
    found = {}
    for made_of, row in SOCKETS.items():
        for name, _, io_type in (entry.partition("=") for entry in row.split()):
            found[name] = _socket(name, io_type or name.upper(), made_of)
    return found


_TYPES: Mapping[str, type[ComfyType]] = _all_sockets()
AnyType = _TYPES["AnyType"]
NAMES: Sequence[str] = tuple(_TYPES)


def __getattr__(name: str) -> type[ComfyType]:
    if name in _TYPES:
        return _TYPES[name]
    raise missing("comfy_api.latest.io", name, f"{', '.join(NAMES)}; and Custom(IO_TYPE) for any other")
