"""Socket types of V3 schemas: what an input or output is, and what of it an editor is told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, StrEnum
from typing import Any, ClassVar, Self, TypeVar

from engine.custom.plain import plain

Kind = TypeVar("Kind", bound="type[ComfyType]")


class NumberDisplay(StrEnum):
    number = "number"
    slider = "slider"
    gradient_slider = "gradientslider"


class ControlAfterGenerate(StrEnum):
    fixed = "fixed"
    increment = "increment"
    decrement = "decrement"
    randomize = "randomize"


class FolderType(StrEnum):
    input = "input"
    output = "output"
    temp = "temp"


class UploadType(StrEnum):
    """The values are the options that editors know."""

    image = "image_upload"
    audio = "audio_upload"
    video = "video_upload"
    model = "file_upload"


class RemoteOptions:
    """Choices that an editor fetches by itself."""

    def __init__(
        self,
        route: str,
        refresh_button: bool = True,
        control_after_refresh: str = "first",
        timeout: int | None = None,
        max_retries: int | None = None,
        refresh: int | None = None,
    ) -> None:
        self.options = {
            "route": route,
            "refresh_button": refresh_button,
            "control_after_refresh": control_after_refresh,
            "timeout": timeout,
            "max_retries": max_retries,
            "refresh": refresh,
        }

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in self.options.items() if value is not None}


class Input:
    """One input. `kind` is [type, options] as /object_info shows it."""

    io_type: ClassVar[str] = "*"

    def __init__(
        self,
        id: str,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        lazy: bool | None = None,
        extra_dict: Mapping[str, Any] | None = None,
        raw_link: bool | None = None,
        advanced: bool | None = None,
        **options: Any,
    ) -> None:
        self.id = id
        self.optional = optional
        self.options: dict[str, Any] = {
            "display_name": display_name,
            "tooltip": tooltip,
            "lazy": lazy,
            "rawLink": raw_link,
            "advanced": advanced,
            **options,
            **(extra_dict or {}),
        }

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

    def __init__(
        self,
        id: str,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        lazy: bool | None = None,
        default: Any = None,
        socketless: bool | None = None,
        widget_type: str | None = None,
        force_input: bool | None = None,
        extra_dict: Mapping[str, Any] | None = None,
        raw_link: bool | None = None,
        advanced: bool | None = None,
        **options: Any,
    ) -> None:
        more = {"default": default, "socketless": socketless, "widgetType": widget_type, "forceInput": force_input}
        super().__init__(id, display_name, optional, tooltip, lazy, extra_dict, raw_link, advanced, **more, **options)
        self.default = default


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
    return socket(io_type)


def socket(io_type: str, made_of: type[Input] = Input) -> type[ComfyType]:
    cls = type(io_type.title().replace("_", ""), (ComfyType,), {"Input": made_of})
    return comfytype(io_type)(cls)


class _Number(WidgetInput):
    def __init__(
        self,
        id: str,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        lazy: bool | None = None,
        default: float | None = None,
        min: float | None = None,
        max: float | None = None,
        step: float | None = None,
        control_after_generate: bool | ControlAfterGenerate | None = None,
        display_mode: NumberDisplay | None = None,
        **more: Any,
    ) -> None:
        numbers = {"min": min, "max": max, "step": step, "control_after_generate": control_after_generate}
        display = None if display_mode is None else str(display_mode)
        super().__init__(id, display_name, optional, tooltip, lazy, default, **numbers, display=display, **more)


class _Text(WidgetInput):
    def __init__(
        self,
        id: str,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        lazy: bool | None = None,
        multiline: bool = False,
        placeholder: str | None = None,
        default: str | None = None,
        dynamic_prompts: bool | None = None,
        **more: Any,
    ) -> None:
        about = {"multiline": multiline or None, "placeholder": placeholder, "dynamicPrompts": dynamic_prompts}
        super().__init__(id, display_name, optional, tooltip, lazy, default, **about, **more)


class _Choice(WidgetInput):
    def __init__(
        self,
        id: str,
        options: Iterable[Any] | type[Enum] | None = None,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        lazy: bool | None = None,
        default: Any = None,
        control_after_generate: bool | ControlAfterGenerate | None = None,
        upload: UploadType | None = None,
        image_folder: FolderType | None = None,
        remote: RemoteOptions | None = None,
        **more: Any,
    ) -> None:
        choices = [one.value if isinstance(one, Enum) else one for one in options or ()]
        default = default.value if isinstance(default, Enum) else default
        about: dict[str, Any] = {
            "options": choices,
            "control_after_generate": control_after_generate,
            "image_folder": image_folder,
            "remote": remote.as_dict() if remote else None,
        }
        if upload is not None:
            about[str(upload)] = True
        super().__init__(id, display_name, optional, tooltip, lazy, default, **about, **more)


class _Choices(_Choice):
    """Several of the choices at once: a list."""

    def __init__(
        self,
        id: str,
        options: Sequence[Any],
        *more: Any,
        placeholder: str | None = None,
        chip: bool = False,
        **about: Any,
    ) -> None:
        shown = {name: value for name, value in (("placeholder", placeholder), ("chip", chip or None)) if value}
        super().__init__(id, options, *more, multiselect=True, multi_select=shown or None, **about)


class _OnlyWidget(WidgetInput):
    def __init__(self, id: str, *more: Any, socketless: bool = True, **options: Any) -> None:
        super().__init__(id, *more, socketless=socketless, **options)


Int = socket("INT", _Number)
Float = socket("FLOAT", _Number)
String = socket("STRING", _Text)
Boolean = socket("BOOLEAN", WidgetInput)
Combo = socket("COMBO", _Choice)
MultiCombo = socket("COMBO", _Choices)
Color = socket("COLOR", _OnlyWidget)
BoundingBox = socket("BOUNDING_BOX", _OnlyWidget)
Curve = socket("CURVE", _OnlyWidget)
ImageCompare = socket("IMAGECOMPARE", _OnlyWidget)
Webcam = socket("WEBCAM", WidgetInput)
Histogram = socket("HISTOGRAM")
AnyType = socket("*")
Image = socket("IMAGE")
Mask = socket("MASK")
Latent = socket("LATENT")
Conditioning = socket("CONDITIONING")
Model = socket("MODEL")
Clip = socket("CLIP")
Vae = socket("VAE")
ControlNet = socket("CONTROL_NET")
ClipVision = socket("CLIP_VISION")
ClipVisionOutput = socket("CLIP_VISION_OUTPUT")
StyleModel = socket("STYLE_MODEL")
Gligen = socket("GLIGEN")
UpscaleModel = socket("UPSCALE_MODEL")
LatentUpscaleModel = socket("LATENT_UPSCALE_MODEL")
Sampler = socket("SAMPLER")
Sigmas = socket("SIGMAS")
Noise = socket("NOISE")
Guider = socket("GUIDER")
Audio = socket("AUDIO")
AudioEncoder = socket("AUDIO_ENCODER")
AudioEncoderOutput = socket("AUDIO_ENCODER_OUTPUT")
Video = socket("VIDEO")
SVG = socket("SVG")
LoraModel = socket("LORA_MODEL")
LossMap = socket("LOSS_MAP")
ModelPatch = socket("MODEL_PATCH")
Voxel = socket("VOXEL")
Mesh = socket("MESH")
Hooks = socket("HOOKS")
HookKeyframes = socket("HOOK_KEYFRAMES")
TimestepsRange = socket("TIMESTEPS_RANGE")
LatentOperation = socket("LATENT_OPERATION")
FlowControl = socket("FLOW_CONTROL")
Accumulation = socket("ACCUMULATION")
Photomaker = socket("PHOTOMAKER")
Point = socket("POINT")
FaceAnalysis = socket("FACE_ANALYSIS")
BBOX = socket("BBOX")
SEGS = socket("SEGS")
Tracks = socket("TRACKS")
WanCameraEmbedding = socket("WAN_CAMERA_EMBEDDING")
