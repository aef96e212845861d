"""Nodes that change the direction or the strength of guidance: engine/sampling/patches does the work."""

from __future__ import annotations

from typing import Annotated

from engine.families.base import Model
from engine.graph.node import MODEL, In, NodeContext, Out, node
from engine.nodes.guidance import patched
from engine.sampling.patches.directions import adaptive_projected_guidance, frequency_scaling
from engine.sampling.patches.frames import linear_cfg, triangle_cfg

MODEL_OUT = [Out("MODEL")]
Scale = Annotated[float, In("FLOAT", default=1.0, min=0, max=10, step=0.01)]
MinCfg = Annotated[float, In("FLOAT", default=1.0, min=0.0, max=100.0, step=0.5)]


@node(
    "APG",
    title="Adaptive Projected Guidance",
    title_zh="自适应投影引导（APG）",
    category="sampling/custom_sampling",
    outputs=MODEL_OUT,
)
def apg(
    ctx: NodeContext,
    model: MODEL,
    eta: Annotated[float, In("FLOAT", default=1.0, min=-10.0, max=10.0, step=0.01)],
    norm_threshold: Annotated[float, In("FLOAT", default=5.0, min=0.0, max=50.0, step=0.1)],
    momentum: Annotated[float, In("FLOAT", default=0.0, min=-5.0, max=1.0, step=0.01)],
) -> tuple[Model]:
    """A high cfg without its burnt colours: less of what only makes the estimate stronger."""
    return (patched(model, adaptive_projected_guidance(eta, norm_threshold, momentum)),)


@node(
    "FreSca",
    title="FreSca",
    title_zh="FreSca 频率缩放引导",
    category="_for_testing",
    outputs=MODEL_OUT,
    experimental=True,
)
def fresca(
    ctx: NodeContext,
    model: MODEL,
    scale_low: Scale,
    scale_high: Annotated[float, In("FLOAT", default=1.25, min=0, max=10, step=0.01)],
    freq_cutoff: Annotated[int, In("INT", default=20, min=1, max=10000, step=1)],
) -> tuple[Model]:
    """Guidance of structure (low frequencies) and of detail (high ones), each with a scale of its own."""
    return (patched(model, frequency_scaling(scale_low, scale_high, freq_cutoff)),)


@node(
    "VideoLinearCFGGuidance",
    title="VideoLinearCFGGuidance",
    title_zh="视频线性 CFG 引导",
    category="sampling/video_models",
    outputs=MODEL_OUT,
)
def video_linear_cfg_guidance(ctx: NodeContext, model: MODEL, min_cfg: MinCfg) -> tuple[Model]:
    return (patched(model, linear_cfg(min_cfg)),)


@node(
    "VideoTriangleCFGGuidance",
    title="VideoTriangleCFGGuidance",
    title_zh="视频三角 CFG 引导",
    category="sampling/video_models",
    outputs=MODEL_OUT,
)
def video_triangle_cfg_guidance(ctx: NodeContext, model: MODEL, min_cfg: MinCfg) -> tuple[Model]:
    return (patched(model, triangle_cfg(min_cfg)),)
