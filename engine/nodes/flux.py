"""Nodes for Flux.1: prompts for its two encoders, guidance, references for Kontext."""

from __future__ import annotations

from typing import Annotated, Any

from torch import Tensor

from engine.families.parts.resizing import resized
from engine.graph.node import CLIP, CONDITIONING, IMAGE, In, NodeContext, Out, node
from engine.nodes.conditioning import conditioned

Guidance = Annotated[float, In("FLOAT", default=3.5, min=0.0, max=100.0, step=0.1)]
CATEGORY = "advanced/conditioning/flux"

# The sizes that Kontext was trained with (Black Forest Labs), by their proportions.
KONTEXT_SIZES = (
    (672, 1568), (688, 1504), (720, 1456), (752, 1392), (800, 1328), (832, 1248), (880, 1184), (944, 1104),
    (1024, 1024), (1104, 944), (1184, 880), (1248, 832), (1328, 800), (1392, 752), (1456, 720), (1504, 688),
    (1568, 672),
)  # fmt: skip


@node(
    "CLIPTextEncodeFlux",
    title="CLIPTextEncodeFlux",
    title_zh="CLIP 文本编码（Flux）",
    category=CATEGORY,
    outputs=[Out("CONDITIONING")],
)
def clip_text_encode_flux(
    ctx: NodeContext,
    clip: CLIP,
    clip_l: Annotated[str, In("STRING", multiline=True, dynamic_prompts=True)],
    t5xxl: Annotated[str, In("STRING", multiline=True, dynamic_prompts=True)],
    guidance: Guidance,
) -> tuple[list[list[Any]]]:
    """A prompt for each encoder, and how closely the picture follows it."""
    return (conditioned(ctx, clip, {"l": clip_l, "t5xxl": t5xxl}, guidance=guidance),)


@node("FluxGuidance", title="FluxGuidance", title_zh="Flux 引导强度", category=CATEGORY, outputs=[Out("CONDITIONING")])
def flux_guidance(ctx: NodeContext, conditioning: CONDITIONING, guidance: Guidance) -> tuple[list[list[Any]]]:
    """How closely a guidance-distilled Flux follows the prompt."""
    return ([[cross, {**options, "guidance": guidance}] for cross, options in conditioning],)


@node(
    "FluxDisableGuidance",
    title="FluxDisableGuidance",
    title_zh="关闭 Flux 引导",
    category=CATEGORY,
    outputs=[Out("CONDITIONING")],
)
def flux_disable_guidance(ctx: NodeContext, conditioning: CONDITIONING) -> tuple[list[list[Any]]]:
    """The model is told no guidance at all."""
    return ([[cross, {**options, "guidance": None}] for cross, options in conditioning],)


@node(
    "FluxKontextImageScale",
    title="FluxKontextImageScale",
    title_zh="Flux Kontext 图像缩放",
    category=CATEGORY,
    outputs=[Out("IMAGE")],
)
def flux_kontext_image_scale(ctx: NodeContext, image: IMAGE) -> tuple[Tensor]:
    """To the size among those of Kontext's training whose proportions are nearest."""
    aspect = image.shape[2] / image.shape[1]
    width, height = min(KONTEXT_SIZES, key=lambda size: abs(aspect - size[0] / size[1]))
    return (resized(image.movedim(-1, 1), width, height, "lanczos", "center").movedim(1, -1),)


@node(
    "FluxKontextMultiReferenceLatentMethod",
    title="FluxKontextMultiReferenceLatentMethod",
    title_zh="Flux Kontext 多参考潜变量方式",
    category=CATEGORY,
    outputs=[Out("CONDITIONING")],
)
def flux_kontext_multi_reference_latent_method(
    ctx: NodeContext,
    conditioning: CONDITIONING,
    reference_latents_method: Annotated[str, In(["offset", "index", "uxo/uno"])],
) -> tuple[list[list[Any]]]:
    """How several references stand beside the picture: one further picture, a picture each, or on its own plane."""
    method = {"reference_latents_method": reference_latents_method}
    return ([[cross, {**options, **method}] for cross, options in conditioning],)
