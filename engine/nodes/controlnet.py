"""ControlNets: load one, and put a prompt under its control."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

from engine.families.base import Vae
from engine.families.controls.base import Control, ControlNet
from engine.families.controls.discover import load_controlnet
from engine.graph.node import CONDITIONING, IMAGE, MASK, MODEL, VAE, In, Models, NodeContext, Out, node
from engine.nodes.compositing import fitted_mask
from engine.nodes.loaders import file_digest

ControlNetName = Annotated[str, In(Models("controlnet"))]
CONTROL_NET = Annotated[ControlNet, In("CONTROL_NET")]
Strength = Annotated[float, In("FLOAT", default=1.0, min=0.0, max=10.0, step=0.01)]
Start = Annotated[float, In("FLOAT", default=0.0, min=0.0, max=1.0, step=0.001)]
End = Annotated[float, In("FLOAT", default=1.0, min=0.0, max=1.0, step=0.001)]
Conditioning = list[list[Any]]
UNION_TYPES = {  # as the union nets of the field were trained
    "auto": (),
    "openpose": (0,),
    "depth": (1,),
    "hed/pidi/scribble/ted": (2,),
    "canny/lineart/anime_lineart/mlsd": (3,),
    "normal": (4,),
    "segment": (5,),
    "tile": (6,),
    "repaint": (7,),
}


def _digest(ctx: NodeContext, control_net_name: str) -> Any:
    return file_digest(ctx, "controlnet", control_net_name)


@node(
    "ControlNetLoader",
    title="Load ControlNet Model",
    title_zh="加载 ControlNet 模型",
    category="loaders",
    outputs=[Out("CONTROL_NET")],
    fingerprint=_digest,
)
def control_net_loader(ctx: NodeContext, control_net_name: ControlNetName) -> tuple[ControlNet]:
    path = ctx.workspace.model_path("controlnet", control_net_name)
    return (load_controlnet(ctx.models, path, allow_pickle=ctx.workspace.allow_pickle),)


@node(
    "DiffControlNetLoader",
    title="Load ControlNet Model (diff)",
    title_zh="加载 ControlNet 模型（差分）",
    category="loaders",
    outputs=[Out("CONTROL_NET")],
    fingerprint=_digest,
)
def diff_control_net_loader(ctx: NodeContext, model: MODEL, control_net_name: ControlNetName) -> tuple[ControlNet]:
    """A file may hold the difference to the model it was made with; that of `model` is added to it then."""
    path = ctx.workspace.model_path("controlnet", control_net_name)
    return (load_controlnet(ctx.models, path, model, allow_pickle=ctx.workspace.allow_pickle),)


@node(
    "SetUnionControlNetType",
    title="SetUnionControlNetType",
    title_zh="设置联合 ControlNet 类型",
    category="conditioning/controlnet",
    outputs=[Out("CONTROL_NET")],
)
def set_union_control_net_type(
    ctx: NodeContext, control_net: CONTROL_NET, type: Annotated[str, In(list(UNION_TYPES))]
) -> tuple[ControlNet]:
    """What kind of picture a net for several kinds is given. It is told a number, as in ComfyUI: the words are those of
    SDXL's nets. InstantX' union for Flux.1 counts canny, tile, depth, blur, pose, grey and low quality from 0."""
    return (replace(control_net, options={**control_net.options, "control_type": UNION_TYPES[type]}),)


@node(
    "ControlNetApply",
    title="Apply ControlNet (OLD)",
    title_zh="应用 ControlNet（旧）",
    category="conditioning/controlnet",
    outputs=[Out("CONDITIONING")],
    deprecated=True,
)
def control_net_apply(
    ctx: NodeContext, conditioning: CONDITIONING, control_net: CONTROL_NET, image: IMAGE, strength: Strength
) -> tuple[Conditioning]:
    """Acts on the other prompts of a guidance as well."""
    if strength == 0.0:
        return (conditioning,)
    put = _putting(Control(control_net, image, strength))
    return ([[cross, {**put(options), "control_apply_to_uncond": True}] for cross, options in conditioning],)


@node(
    "ControlNetApplyAdvanced",
    title="Apply ControlNet",
    title_zh="应用 ControlNet",
    category="conditioning/controlnet",
    outputs=[Out("CONDITIONING", "positive"), Out("CONDITIONING", "negative")],
)
def control_net_apply_advanced(
    ctx: NodeContext,
    positive: CONDITIONING,
    negative: CONDITIONING,
    control_net: CONTROL_NET,
    image: IMAGE,
    strength: Strength,
    start_percent: Start,
    end_percent: End,
    vae: Annotated[Vae | None, In("VAE")] = None,
) -> tuple[Conditioning, Conditioning]:
    control = Control(control_net, image, strength, start_percent, end_percent, vae)
    return _both_under(control, positive, negative)


@node(
    "ControlNetApplySD3",
    title="Apply Controlnet with VAE",
    title_zh="应用 ControlNet（带 VAE）",
    category="conditioning/controlnet",
    outputs=[Out("CONDITIONING", "positive"), Out("CONDITIONING", "negative")],
    deprecated=True,
)
def control_net_apply_sd3(
    ctx: NodeContext,
    positive: CONDITIONING,
    negative: CONDITIONING,
    control_net: CONTROL_NET,
    vae: VAE,
    image: IMAGE,
    strength: Strength,
    start_percent: Start,
    end_percent: End,
) -> tuple[Conditioning, Conditioning]:
    return control_net_apply_advanced(
        ctx, positive, negative, control_net, image, strength, start_percent, end_percent, vae
    )


@node(
    "ControlNetInpaintingAliMamaApply",
    title="ControlNetInpaintingAliMamaApply",
    title_zh="应用 AliMama 重绘 ControlNet",
    category="conditioning/controlnet",
    outputs=[Out("CONDITIONING", "positive"), Out("CONDITIONING", "negative")],
)
def control_net_inpainting_alimama_apply(
    ctx: NodeContext,
    positive: CONDITIONING,
    negative: CONDITIONING,
    control_net: CONTROL_NET,
    vae: VAE,
    image: IMAGE,
    mask: MASK,
    strength: Strength,
    start_percent: Start,
    end_percent: End,
) -> tuple[Conditioning, Conditioning]:
    """The net sees the picture with nothing where the mask is 1, and, where it takes one, the mask."""
    kept = 1.0 - mask.reshape(-1, 1, *mask.shape[-2:])
    shown = fitted_mask(kept, image.shape[1], image.shape[2]).round().movedim(1, -1)
    control = Control(control_net, image * shown, strength, start_percent, end_percent, vae, mask=kept)
    return _both_under(control, positive, negative)


def _both_under(control: Control, positive: Conditioning, negative: Conditioning) -> tuple[Conditioning, Conditioning]:
    if control.strength == 0.0:
        return positive, negative
    put = _putting(control)

    def under(side: Conditioning) -> Conditioning:
        return [[cross, {**put(options), "control_apply_to_uncond": False}] for cross, options in side]

    return under(positive), under(negative)


def _putting(control: Control) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Puts entries under a control, on top of the one that they are under. Entries under the same one stay so, so that
    they can go into one call of the model."""
    made: dict[int | None, Control] = {}

    def put(options: dict[str, Any]) -> dict[str, Any]:
        previous: Control | None = options.get("control")
        key = id(previous) if previous is not None else None
        if key not in made:
            made[key] = replace(control, previous=previous)
        return {**options, "control": made[key]}

    return put
