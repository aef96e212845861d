"""Guiders: a model, its prompts, and how they are weighed against each other in a run of SamplerCustomAdvanced."""

from __future__ import annotations

from typing import Annotated

from engine.graph.node import CONDITIONING, MODEL, In, NodeContext, Out, node
from engine.nodes.sampling import Cfg as CfgScale
from engine.sampling.guiders import Cfg, DualCfg, Guider, PerpNeg, cfg_guider

CATEGORY = "sampling/custom_sampling/guiders"
NegScale = Annotated[float, In("FLOAT", default=1.0, min=0.0, max=100.0, step=0.01)]


@node("CFGGuider", title_zh="CFG 引导器", category=CATEGORY, outputs=[Out("GUIDER")])
def cfg_guider_node(
    ctx: NodeContext, model: MODEL, positive: CONDITIONING, negative: CONDITIONING, cfg: CfgScale
) -> tuple[Guider]:
    return (cfg_guider(model, positive, negative, cfg),)


@node("BasicGuider", title_zh="基础引导器", category=CATEGORY, outputs=[Out("GUIDER")])
def basic_guider(ctx: NodeContext, model: MODEL, conditioning: CONDITIONING) -> tuple[Guider]:
    """One prompt, as distilled models want it."""
    return (Guider(model, (conditioning,), Cfg(1.0)),)


@node(
    "DualCFGGuider",
    title_zh="双 CFG 引导器",
    category=CATEGORY,
    outputs=[Out("GUIDER")],
)
def dual_cfg_guider(
    ctx: NodeContext,
    model: MODEL,
    cond1: CONDITIONING,
    cond2: CONDITIONING,
    negative: CONDITIONING,
    cfg_conds: CfgScale,
    cfg_cond2_negative: CfgScale,
    style: Annotated[str, In(["regular", "nested"])],
) -> tuple[Guider]:
    """cfg_conds is between the two prompts, cfg_cond2_negative between the second and the negative one."""
    return (Guider(model, (cond1, negative, cond2), DualCfg(cfg_conds, cfg_cond2_negative, style == "nested")),)


@node("PerpNegGuider", title_zh="Perp-Neg 引导器", category="_for_testing", outputs=[Out("GUIDER")])
def perp_neg_guider(
    ctx: NodeContext,
    model: MODEL,
    positive: CONDITIONING,
    negative: CONDITIONING,
    empty_conditioning: CONDITIONING,
    cfg: CfgScale,
    neg_scale: NegScale,
) -> tuple[Guider]:
    """A negative prompt takes away only what the positive one does not ask for (https://arxiv.org/abs/2304.04968)."""
    return (Guider(model, (positive, negative, empty_conditioning), PerpNeg(cfg, neg_scale)),)
