"""Nodes that put prompts together: side by side, averaged, one behind the other, or nothing at all."""

from __future__ import annotations

from typing import Annotated, Any

import torch

from engine.errors import GraphError
from engine.graph.node import CONDITIONING, In, NodeContext, Out, node

CONDITION = [Out("CONDITIONING")]
Entries = list[list[Any]]


class NoPrompt(GraphError):
    en = "The conditioning at '{input}' holds no prompt. Connect the output of a text encode node."
    zh = "“{input}”的条件中没有提示词。请连接文本编码节点的输出。"


class OtherWidth(GraphError):
    en = "Prompts of width {one} and {other} can't be put together: they come from text encoders of different models."
    zh = "宽度为 {one} 和 {other} 的提示词无法组合：它们来自不同模型的文本编码器。"


@node(
    "ConditioningCombine",
    title="Conditioning (Combine)",
    title_zh="条件（合并）",
    category="conditioning",
    outputs=CONDITION,
)
def conditioning_combine(
    ctx: NodeContext, conditioning_1: CONDITIONING, conditioning_2: CONDITIONING
) -> tuple[Entries]:
    """Both prompts are asked for; what the model makes of them is averaged."""
    return ([*conditioning_1, *conditioning_2],)


@node(
    "ConditioningAverage",
    title="ConditioningAverage",
    title_zh="条件（平均）",
    category="conditioning",
    outputs=CONDITION,
)
def conditioning_average(
    ctx: NodeContext,
    conditioning_to: CONDITIONING,
    conditioning_from: CONDITIONING,
    conditioning_to_strength: Annotated[float, In("FLOAT", default=1.0, min=0.0, max=1.0, step=0.01)],
) -> tuple[Entries]:
    """Embeddings between two prompts, token by token; the first prompt of conditioning_from, cut or filled with zeros
    to the other's length."""
    strength = conditioning_to_strength
    source, about = _first(conditioning_from, "conditioning_from")
    mixed: Entries = []
    for cross, options in conditioning_to:
        _same_width(cross, source)
        other = source[:, : cross.shape[1]]
        if other.shape[1] < cross.shape[1]:
            rest = other.new_zeros(other.shape[0], cross.shape[1] - other.shape[1], other.shape[2])
            other = torch.cat([other, rest], dim=1)
        changed = dict(options)
        pooled_from = about.get("pooled_output")
        if pooled_from is not None:
            pooled_to = options.get("pooled_output")
            pooled_to = pooled_from if pooled_to is None else pooled_to
            changed["pooled_output"] = pooled_to * strength + pooled_from * (1 - strength)
        mixed.append([cross * strength + other * (1 - strength), changed])
    return (mixed,)


@node(
    "ConditioningConcat",
    title="Conditioning (Concat)",
    title_zh="条件（拼接）",
    category="conditioning",
    outputs=CONDITION,
)
def conditioning_concat(
    ctx: NodeContext, conditioning_to: CONDITIONING, conditioning_from: CONDITIONING
) -> tuple[Entries]:
    """The tokens of one prompt behind those of the other, as BREAK does it elsewhere."""
    source, _ = _first(conditioning_from, "conditioning_from")
    for cross, _ in conditioning_to:
        _same_width(cross, source)
    return ([[torch.cat([cross, source], dim=1), dict(options)] for cross, options in conditioning_to],)


@node("ConditioningZeroOut", title_zh="条件（置零）", category="advanced/conditioning", outputs=CONDITION)
def conditioning_zero_out(ctx: NodeContext, conditioning: CONDITIONING) -> tuple[Entries]:
    """Zeros in place of the prompt: what some models were trained to take for no prompt."""
    return ([[torch.zeros_like(cross), _zeroed(options)] for cross, options in conditioning],)


def _zeroed(options: dict[str, Any]) -> dict[str, Any]:
    pooled = options.get("pooled_output")
    return dict(options) if pooled is None else {**options, "pooled_output": torch.zeros_like(pooled)}


def _first(conditioning: Entries, name: str) -> tuple[torch.Tensor, dict[str, Any]]:
    if not conditioning:
        raise NoPrompt(input=name)
    return conditioning[0][0], conditioning[0][1]


def _same_width(one: torch.Tensor, other: torch.Tensor) -> None:
    if one.shape[-1] != other.shape[-1]:
        raise OtherWidth(one=one.shape[-1], other=other.shape[-1])
