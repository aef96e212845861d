"""What encoders see in pictures, and styles made of it."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from torch import Tensor

from engine.errors import GraphError
from engine.families.parts import style as style_part
from engine.families.parts import vision as vision_part
from engine.families.style import StyleModel, WrongVision, load_style
from engine.families.vision import ClipVision, VisionOutput, load_vision
from engine.graph.node import CONDITIONING, IMAGE, In, Models, NodeContext, Out, node
from engine.nodes.loaders import file_digest

CLIP_VISION = Annotated[ClipVision, In("CLIP_VISION")]
CLIP_VISION_OUTPUT = Annotated[VisionOutput, In("CLIP_VISION_OUTPUT")]
STYLE_MODEL = Annotated[StyleModel, In("STYLE_MODEL")]
WORKING = 64  # bytes that one number of a picture needs on its way through the encoder
ATTENTION = "attention_bias"  # in a conditioning's options


class WidthsDiffer(GraphError):
    en = (
        "The style's tokens are {style} wide, but the prompt's are {text}: this style model is for another model. "
        "Flux.1 Redux goes with prompts of Flux.1."
    )
    zh = (
        "风格向量宽度为 {style}，而提示词为 {text}：该风格模型用于其他模型。"
        "Flux.1 Redux 只能与 Flux.1 的提示词一起使用。"
    )


def _vision_digest(ctx: NodeContext, clip_name: str) -> Any:
    return file_digest(ctx, "clip_vision", clip_name)


@node(
    "CLIPVisionLoader",
    title="Load CLIP Vision",
    title_zh="加载 CLIP 视觉",
    category="loaders",
    outputs=[Out("CLIP_VISION")],
    fingerprint=_vision_digest,
)
def clip_vision_loader(ctx: NodeContext, clip_name: Annotated[str, In(Models("clip_vision"))]) -> tuple[ClipVision]:
    """CLIP's or SigLIP's vision encoder, alone or beside its text encoder."""
    path = ctx.workspace.model_path("clip_vision", clip_name)
    return (load_vision(ctx.models, path, allow_pickle=ctx.workspace.allow_pickle),)


@node(
    "CLIPVisionEncode",
    title="CLIP Vision Encode",
    title_zh="CLIP 视觉编码",
    category="conditioning",
    outputs=[Out("CLIP_VISION_OUTPUT")],
)
def clip_vision_encode(
    ctx: NodeContext, clip_vision: CLIP_VISION, image: IMAGE, crop: Annotated[str, In(["center", "none"])]
) -> tuple[VisionOutput]:
    pictures = vision_part.prepared(image, clip_vision.kind, clip_vision.size, crop == "center")
    with ctx.models.lease(clip_vision.ref, working=pictures.numel() * WORKING) as leased, torch.no_grad():
        return (vision_part.run(leased[clip_vision.ref], clip_vision.kind, pictures.to(leased.device)),)


def _style_digest(ctx: NodeContext, style_model_name: str) -> Any:
    return file_digest(ctx, "style_models", style_model_name)


@node(
    "StyleModelLoader",
    title="Load Style Model",
    title_zh="加载风格模型",
    category="loaders",
    outputs=[Out("STYLE_MODEL")],
    fingerprint=_style_digest,
)
def style_model_loader(
    ctx: NodeContext, style_model_name: Annotated[str, In(Models("style_models"))]
) -> tuple[StyleModel]:
    """Flux.1 Redux."""
    path = ctx.workspace.model_path("style_models", style_model_name)
    return (load_style(ctx.models, path, allow_pickle=ctx.workspace.allow_pickle),)


@node(
    "StyleModelApply",
    title="Apply Style Model",
    title_zh="应用风格模型",
    category="conditioning/style_model",
    outputs=[Out("CONDITIONING")],
)
def style_model_apply(
    ctx: NodeContext,
    conditioning: CONDITIONING,
    style_model: STYLE_MODEL,
    clip_vision_output: CLIP_VISION_OUTPUT,
    strength: Annotated[float, In("FLOAT", default=1.0, min=0.0, max=10.0, step=0.001)],
    strength_type: Annotated[str, In(["multiply", "attn_bias"])],
) -> tuple[list[list[Any]]]:
    """The style's tokens behind the prompt's. multiply: times the strength; attn_bias: all others look at them as if
    there were so many of each."""
    tokens = _tokens(ctx, style_model, clip_vision_output)
    if strength_type == "multiply":
        tokens = tokens * strength
    amount = 0.0 if strength_type == "multiply" else math.log(strength) if strength else -math.inf
    return ([[*_with_style(entry[0], entry[1], tokens, amount)] for entry in conditioning],)


def _tokens(ctx: NodeContext, model: StyleModel, seen: VisionOutput) -> Tensor:
    """(1, tokens of all pictures, width)."""
    states = seen.last_hidden_state
    if states.shape[-1] != model.seen:
        raise WrongVision(title=model.ref.title, wanted=model.seen, given=states.shape[-1])
    with ctx.models.lease(model.ref) as leased, torch.no_grad():
        module = leased[model.ref]
        told: Tensor = module(states.to(leased.device, next(module.parameters()).dtype))
    return told.float().cpu().flatten(0, 1)[None]


def _with_style(text: Tensor, options: dict[str, Any], tokens: Tensor, amount: float) -> tuple[Tensor, dict[str, Any]]:
    if text.shape[-1] != tokens.shape[-1]:
        raise WidthsDiffer(style=tokens.shape[-1], text=text.shape[-1])
    options = dict(options)
    if ATTENTION in options or amount:
        options[ATTENTION] = style_part.with_bias(options.get(ATTENTION), text.shape[1], tokens.shape[1], amount)
    added = tokens.to(text).expand(text.shape[0], -1, -1)
    return torch.cat([text, added], dim=1), options
