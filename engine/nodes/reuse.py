"""Nodes that leave evaluations of a model out where its answer would hardly change."""

from __future__ import annotations

from typing import Annotated

from engine.families.base import Model
from engine.graph.node import MODEL, In, NodeContext, Out, node
from engine.nodes.guidance import patched
from engine.sampling.model import schedule_of
from engine.sampling.patches.reuse import easy_cache, lazy_cache

MODEL_OUT = [Out("MODEL")]
CATEGORY = "advanced/debug/model"
Threshold = Annotated[
    float,
    In(
        "FLOAT",
        default=0.2,
        min=0.0,
        max=3.0,
        step=0.01,
        tooltip="How far an answer may be off before it is made anew.",
    ),
]
Start = Annotated[float, In("FLOAT", default=0.15, min=0.0, max=1.0, step=0.01, advanced=True)]
End = Annotated[float, In("FLOAT", default=0.95, min=0.0, max=1.0, step=0.01, advanced=True)]
Verbose = Annotated[
    bool, In("BOOLEAN", default=False, tooltip="Tell in the log which steps were reused.", advanced=True)
]


@node(
    "EasyCache", title="EasyCache", title_zh="EasyCache 加速", category=CATEGORY, outputs=MODEL_OUT, experimental=True
)
def easy_cache_node(
    ctx: NodeContext,
    model: MODEL,
    reuse_threshold: Threshold,
    start_percent: Start,
    end_percent: End,
    verbose: Verbose,
) -> tuple[Model]:
    """Faster, and a little different: steps whose answer of the model would hardly change take the last one's."""
    range_ = _sigmas(model, start_percent, end_percent)
    return (patched(model, easy_cache(reuse_threshold, *range_, verbose)),)


@node(
    "LazyCache", title="LazyCache", title_zh="LazyCache 加速", category=CATEGORY, outputs=MODEL_OUT, experimental=True
)
def lazy_cache_node(
    ctx: NodeContext,
    model: MODEL,
    reuse_threshold: Threshold,
    start_percent: Start,
    end_percent: End,
    verbose: Verbose,
) -> tuple[Model]:
    """As EasyCache, over the guided result instead of each call of the model: coarser, but for anything."""
    range_ = _sigmas(model, start_percent, end_percent)
    return (patched(model, lazy_cache(reuse_threshold, *range_, verbose)),)


def _sigmas(model: Model, start: float, end: float) -> tuple[float, float]:
    schedule = schedule_of(model)
    return schedule.percent_to_sigma(start), schedule.percent_to_sigma(end)
