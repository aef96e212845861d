"""Nodes that act on the layers of a UNet while it runs: engine/sampling/patches does the work."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from torch import Tensor

from engine.families.base import Model
from engine.families.parts.patch import Patch
from engine.families.parts.resizing import resized
from engine.graph.node import MODEL, In, NodeContext, Out, node
from engine.nodes.guidance import patched
from engine.sampling.model import schedule_of
from engine.sampling.patches.attention import perturbed_attention, self_attention_guidance
from engine.sampling.patches.downscale import downscale
from engine.sampling.patches.freeu import Factors, by_mean, flat, freeu
from engine.sampling.patches.unet import need_middle_attention, need_unet

CATEGORY = "model_patches/unet"
MODEL_OUT = [Out("MODEL")]
METHODS = ["bicubic", "nearest-exact", "bilinear", "area", "bislerp"]


def _factor(default: float) -> In:
    return In("FLOAT", default=default, min=0.0, max=10.0, step=0.01)


S1 = Annotated[float, _factor(0.9)]
S2 = Annotated[float, _factor(0.2)]


@node("FreeU", title_zh="FreeU", category=CATEGORY, outputs=MODEL_OUT)
def freeu_node(
    ctx: NodeContext,
    model: MODEL,
    b1: Annotated[float, _factor(1.1)],
    b2: Annotated[float, _factor(1.2)],
    s1: S1,
    s2: S2,
) -> tuple[Model]:
    return (_freeu(model, "FreeU", (b1, b2), (s1, s2), flat),)


@node("FreeU_V2", title_zh="FreeU V2", category=CATEGORY, outputs=MODEL_OUT)
def freeu_v2(
    ctx: NodeContext,
    model: MODEL,
    b1: Annotated[float, _factor(1.3)],
    b2: Annotated[float, _factor(1.4)],
    s1: S1,
    s2: S2,
) -> tuple[Model]:
    """Where the mean over channels is high, more."""
    return (_freeu(model, "FreeU_V2", (b1, b2), (s1, s2), by_mean),)


def _freeu(
    model: Model, name: str, backbone: tuple[float, float], skip: tuple[float, float], factors: Factors
) -> Model:
    """The first values for hidden states of four times the UNet's base width, the second for those of twice."""
    need_unet(model, name)
    width = model.config["block_out_channels"][0]
    scales = {width * 4: (backbone[0], skip[0]), width * 2: (backbone[1], skip[1])}
    return patched(model, Patch(name, acting=freeu(scales, factors)))


@node("PerturbedAttentionGuidance", title_zh="扰动注意力引导", category=CATEGORY, outputs=MODEL_OUT)
def perturbed_attention_guidance(
    ctx: NodeContext,
    model: MODEL,
    scale: Annotated[float, In("FLOAT", default=3.0, min=0.0, max=100.0, step=0.01, round=0.01)],
) -> tuple[Model]:
    """One more evaluation a step, with self-attention spoilt in the middle; away from what it gives."""
    need_middle_attention(model, "PerturbedAttentionGuidance")
    return (patched(model, perturbed_attention(scale)),)


@node(
    "SelfAttentionGuidance",
    title="Self-Attention Guidance",
    title_zh="自注意力引导",
    category="_for_testing",
    outputs=MODEL_OUT,
    experimental=True,
)
def self_attention_guidance_node(
    ctx: NodeContext,
    model: MODEL,
    scale: Annotated[float, In("FLOAT", default=0.5, min=-2.0, max=5.0, step=0.01)],
    blur_sigma: Annotated[float, In("FLOAT", default=2.0, min=0.0, max=10.0, step=0.1)],
) -> tuple[Model]:
    """One more evaluation a step, of the picture blurred where the model looks; away from what it gives."""
    need_middle_attention(model, "SelfAttentionGuidance")
    return (patched(model, self_attention_guidance(scale, blur_sigma)),)


@node(
    "PatchModelAddDownscale",
    title="PatchModelAddDownscale (Kohya Deep Shrink)",
    title_zh="深度收缩（Kohya）",
    category=CATEGORY,
    outputs=MODEL_OUT,
)
def patch_model_add_downscale(
    ctx: NodeContext,
    model: MODEL,
    block_number: Annotated[int, In("INT", default=3, min=1, max=32, step=1)],
    downscale_factor: Annotated[float, In("FLOAT", default=2.0, min=0.1, max=9.0, step=0.001)],
    start_percent: Annotated[float, In("FLOAT", default=0.0, min=0.0, max=1.0, step=0.001)],
    end_percent: Annotated[float, In("FLOAT", default=0.35, min=0.0, max=1.0, step=0.001)],
    downscale_after_skip: Annotated[bool, In("BOOLEAN", default=True)],
    downscale_method: Annotated[str, In(METHODS)],
    upscale_method: Annotated[str, In(METHODS)],
) -> tuple[Model]:
    """For pictures larger than the model's: the first part of the way at a lower inner resolution."""
    need_unet(model, "PatchModelAddDownscale")
    schedule = schedule_of(model)
    acting = downscale(
        block_number,
        downscale_factor,
        schedule.percent_to_sigma(start_percent),
        schedule.percent_to_sigma(end_percent),
        downscale_after_skip,
        partial(_resize, method=downscale_method),
        partial(_resize, method=upscale_method),
    )
    return (patched(model, Patch("PatchModelAddDownscale", acting=acting)),)


def _resize(latent: Tensor, width: int, height: int, method: str) -> Tensor:
    return resized(latent, width, height, method, "disabled")
