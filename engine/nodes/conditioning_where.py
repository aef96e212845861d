"""Nodes that say where, when and how much a prompt counts; sampling/conditioning.py reads what they write."""

from __future__ import annotations

from typing import Annotated, Any

from torch import Tensor

from engine.families.parts.hook import Hooks, combined
from engine.graph.limits import MAX_SIDE
from engine.graph.node import CONDITIONING, MASK, In, NodeContext, Out, node
from engine.nodes.latent import PIXELS_PER_CELL

CONDITION = [Out("CONDITIONING")]
PAIR = [Out("CONDITIONING", "positive"), Out("CONDITIONING", "negative")]
Entries = list[list[Any]]
Range = tuple[float, float]

Strength = Annotated[float, In("FLOAT", default=1.0, min=0.0, max=10.0, step=0.01)]
Area = Annotated[str, In(["default", "mask bounds"])]
Percent = Annotated[float, In("FLOAT", default=0.0, min=0.0, max=1.0, step=0.001)]
EndPercent = Annotated[float, In("FLOAT", default=1.0, min=0.0, max=1.0, step=0.001)]
OptionalMask = Annotated[Tensor | None, In("MASK")]
OptionalHooks = Annotated[Hooks | None, In("HOOKS")]
OptionalTimesteps = Annotated[Range | None, In("TIMESTEPS_RANGE")]


def with_values(conditioning: Entries, values: dict[str, Any]) -> Entries:
    return [[cross, {**options, **values}] for cross, options in conditioning]


@node(
    "ConditioningSetArea",
    title="Conditioning (Set Area)",
    title_zh="条件（设置区域）",
    category="conditioning",
    outputs=CONDITION,
)
def conditioning_set_area(
    ctx: NodeContext,
    conditioning: CONDITIONING,
    width: Annotated[int, In("INT", default=64, min=64, max=MAX_SIDE, step=8)],
    height: Annotated[int, In("INT", default=64, min=64, max=MAX_SIDE, step=8)],
    x: Annotated[int, In("INT", default=0, min=0, max=MAX_SIDE, step=8)],
    y: Annotated[int, In("INT", default=0, min=0, max=MAX_SIDE, step=8)],
    strength: Strength,
) -> tuple[Entries]:
    cells = tuple(side // PIXELS_PER_CELL for side in (height, width, y, x))
    return (with_values(conditioning, {"area": cells, "strength": strength, "set_area_to_bounds": False}),)


def _share(default: float) -> In:
    return In("FLOAT", default=default, min=0, max=1.0, step=0.01)


@node(
    "ConditioningSetAreaPercentage",
    title="Conditioning (Set Area with Percentage)",
    title_zh="条件（按百分比设置区域）",
    category="conditioning",
    outputs=CONDITION,
)
def conditioning_set_area_percentage(
    ctx: NodeContext,
    conditioning: CONDITIONING,
    width: Annotated[float, _share(1.0)],
    height: Annotated[float, _share(1.0)],
    x: Annotated[float, _share(0)],
    y: Annotated[float, _share(0)],
    strength: Strength,
) -> tuple[Entries]:
    area = ("percentage", height, width, y, x)
    return (with_values(conditioning, {"area": area, "strength": strength, "set_area_to_bounds": False}),)


@node(
    "ConditioningSetAreaStrength",
    title="ConditioningSetAreaStrength",
    title_zh="条件（设置强度）",
    category="conditioning",
    outputs=CONDITION,
)
def conditioning_set_area_strength(ctx: NodeContext, conditioning: CONDITIONING, strength: Strength) -> tuple[Entries]:
    return (with_values(conditioning, {"strength": strength}),)


@node(
    "ConditioningSetMask",
    title="Conditioning (Set Mask)",
    title_zh="条件（设置遮罩）",
    category="conditioning",
    outputs=CONDITION,
)
def conditioning_set_mask(
    ctx: NodeContext, conditioning: CONDITIONING, mask: MASK, strength: Strength, set_cond_area: Area
) -> tuple[Entries]:
    """ "mask bounds" asks the model about the rectangle around the mask alone: faster, and it sees nothing else."""
    return (with_values(conditioning, _mask_values(mask, strength, set_cond_area)),)


@node(
    "ConditioningSetTimestepRange",
    title_zh="条件（设置时间范围）",
    category="advanced/conditioning",
    outputs=CONDITION,
)
def conditioning_set_timestep_range(
    ctx: NodeContext, conditioning: CONDITIONING, start: Percent, end: EndPercent
) -> tuple[Entries]:
    """The prompt counts from one share of the way to another; 0 is the noisiest."""
    return (with_values(conditioning, {"start_percent": start, "end_percent": end}),)


@node(
    "ConditioningTimestepsRange",
    title="Timesteps Range",
    title_zh="时间范围",
    category="advanced/hooks",
    outputs=[
        Out("TIMESTEPS_RANGE"),
        Out("TIMESTEPS_RANGE", "BEFORE_RANGE"),
        Out("TIMESTEPS_RANGE", "AFTER_RANGE"),
    ],
)
def conditioning_timesteps_range(
    ctx: NodeContext, start_percent: Percent, end_percent: EndPercent
) -> tuple[Range, Range, Range]:
    return (start_percent, end_percent), (0.0, start_percent), (end_percent, 1.0)


@node(
    "ConditioningSetProperties",
    title="Cond Set Props",
    title_zh="条件（设置属性）",
    category="advanced/hooks/cond single",
    outputs=CONDITION,
)
def conditioning_set_properties(
    ctx: NodeContext,
    cond_NEW: CONDITIONING,
    strength: Strength,
    set_cond_area: Area,
    mask: OptionalMask = None,
    hooks: OptionalHooks = None,
    timesteps: OptionalTimesteps = None,
) -> tuple[Entries]:
    """A mask with its strength, LoRAs that act while the prompt is evaluated, and a range of timesteps."""
    return (_with_properties(cond_NEW, strength, set_cond_area, mask, hooks, timesteps),)


@node(
    "ConditioningSetPropertiesAndCombine",
    title="Cond Set Props Combine",
    title_zh="条件（设置属性并合并）",
    category="advanced/hooks/cond single",
    outputs=CONDITION,
)
def conditioning_set_properties_and_combine(
    ctx: NodeContext,
    cond: CONDITIONING,
    cond_NEW: CONDITIONING,
    strength: Strength,
    set_cond_area: Area,
    mask: OptionalMask = None,
    hooks: OptionalHooks = None,
    timesteps: OptionalTimesteps = None,
) -> tuple[Entries]:
    return ([*cond, *_with_properties(cond_NEW, strength, set_cond_area, mask, hooks, timesteps)],)


@node(
    "ConditioningSetDefaultCombine",
    title="Cond Set Default Combine",
    title_zh="条件（合并默认条件）",
    category="advanced/hooks/cond single",
    outputs=CONDITION,
)
def conditioning_set_default_combine(
    ctx: NodeContext, cond: CONDITIONING, cond_DEFAULT: CONDITIONING, hooks: OptionalHooks = None
) -> tuple[Entries]:
    """The default prompt counts where the others' masks leave something."""
    return ([*cond, *_default(cond_DEFAULT, hooks)],)


@node(
    "PairConditioningSetProperties",
    title="Cond Pair Set Props",
    title_zh="条件对（设置属性）",
    category="advanced/hooks/cond pair",
    outputs=PAIR,
)
def pair_conditioning_set_properties(
    ctx: NodeContext,
    positive_NEW: CONDITIONING,
    negative_NEW: CONDITIONING,
    strength: Strength,
    set_cond_area: Area,
    mask: OptionalMask = None,
    hooks: OptionalHooks = None,
    timesteps: OptionalTimesteps = None,
) -> tuple[Entries, Entries]:
    return (
        _with_properties(positive_NEW, strength, set_cond_area, mask, hooks, timesteps),
        _with_properties(negative_NEW, strength, set_cond_area, mask, hooks, timesteps),
    )


@node(
    "PairConditioningSetPropertiesAndCombine",
    title="Cond Pair Set Props Combine",
    title_zh="条件对（设置属性并合并）",
    category="advanced/hooks/cond pair",
    outputs=PAIR,
)
def pair_conditioning_set_properties_and_combine(
    ctx: NodeContext,
    positive: CONDITIONING,
    negative: CONDITIONING,
    positive_NEW: CONDITIONING,
    negative_NEW: CONDITIONING,
    strength: Strength,
    set_cond_area: Area,
    mask: OptionalMask = None,
    hooks: OptionalHooks = None,
    timesteps: OptionalTimesteps = None,
) -> tuple[Entries, Entries]:
    return (
        [*positive, *_with_properties(positive_NEW, strength, set_cond_area, mask, hooks, timesteps)],
        [*negative, *_with_properties(negative_NEW, strength, set_cond_area, mask, hooks, timesteps)],
    )


@node(
    "PairConditioningSetDefaultCombine",
    title="Cond Pair Set Default Combine",
    title_zh="条件对（合并默认条件）",
    category="advanced/hooks/cond pair",
    outputs=PAIR,
)
def pair_conditioning_set_default_combine(
    ctx: NodeContext,
    positive: CONDITIONING,
    negative: CONDITIONING,
    positive_DEFAULT: CONDITIONING,
    negative_DEFAULT: CONDITIONING,
    hooks: OptionalHooks = None,
) -> tuple[Entries, Entries]:
    return [*positive, *_default(positive_DEFAULT, hooks)], [*negative, *_default(negative_DEFAULT, hooks)]


@node(
    "PairConditioningCombine",
    title="Cond Pair Combine",
    title_zh="条件对（合并）",
    category="advanced/hooks/cond pair",
    outputs=PAIR,
)
def pair_conditioning_combine(
    ctx: NodeContext,
    positive_A: CONDITIONING,
    negative_A: CONDITIONING,
    positive_B: CONDITIONING,
    negative_B: CONDITIONING,
) -> tuple[Entries, Entries]:
    return [*positive_A, *positive_B], [*negative_A, *negative_B]


def _with_properties(
    conditioning: Entries,
    strength: float,
    set_cond_area: str,
    mask: Tensor | None,
    hooks: Hooks | None,
    timesteps: Range | None,
) -> Entries:
    values = {} if mask is None else _mask_values(mask, strength, set_cond_area)
    if timesteps is not None:
        values |= {"start_percent": timesteps[0], "end_percent": timesteps[1]}
    return with_hooks(with_values(conditioning, values), hooks)


def _default(conditioning: Entries, hooks: Hooks | None) -> Entries:
    return with_hooks(with_values(conditioning, {"default": True}), hooks)


def with_hooks(conditioning: Entries, hooks: Hooks | None) -> Entries:
    """Beside those that a prompt has already."""
    if not hooks:
        return conditioning
    return [[cross, {**options, "hooks": combined(options.get("hooks"), hooks)}] for cross, options in conditioning]


def _mask_values(mask: Tensor, strength: float, set_cond_area: str) -> dict[str, Any]:
    bounds = set_cond_area == "mask bounds"
    return {"mask": mask[None] if mask.ndim < 3 else mask, "set_area_to_bounds": bounds, "mask_strength": strength}
