"""Rules that make one estimate of several prompts', and GUIDER links: a model, its prompts and the rule over them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.families.base import Model
from engine.sampling.guidance import Conditioning, Point, Rule, Seen


@dataclass(frozen=True, eq=False)
class Guider:
    """sides: the prompts that the rule asks for by their index."""

    model: Model
    sides: tuple[Conditioning, ...]
    rule: Rule


def cfg_guider(model: Model, positive: Conditioning, negative: Conditioning, cfg: float) -> Guider:
    return Guider(model, (positive, negative), Cfg(cfg))


@dataclass(frozen=True)
class Cfg:
    """Classifier-free guidance (https://arxiv.org/abs/2207.12598) of side 0 by side 1. At cfg 1 the negative prompt is
    not evaluated."""

    cfg: float

    def __call__(self, point: Point, both: bool) -> tuple[Tensor, Tensor]:
        sides = (0, 1 if both or not math.isclose(self.cfg, 1.0) else None)
        cond, uncond = point.estimates(*sides)
        cond, uncond = point.prepare(cond, uncond, self.cfg, sides)
        return point.guide(cond, uncond, self.cfg, sides), uncond


@dataclass(frozen=True)
class DualCfg:
    """Two prompts (sides 0 and 2) and a negative one (1). regular: the second is guided by the negative one, and the
    way from the second to the first is added; nested: the first is guided by the second, and both by the negative."""

    cfg: float
    cfg_negative: float
    nested: bool

    def __call__(self, point: Point, both: bool) -> tuple[Tensor, Tensor]:
        if self.nested:
            negative, second, first = point.estimates(1, 2, 0)
            guided = point.guide(first, second, self.cfg, (0, 2))
            return negative + (guided - negative) * self.cfg_negative, second
        negative_off = math.isclose(self.cfg_negative, 1.0) and not both
        second_off = negative_off and math.isclose(self.cfg, 1.0)
        ask = (None if negative_off else 1, None if second_off else 2)
        negative, second, first = point.estimates(*ask, 0)
        guided = point.guide(second, negative, self.cfg_negative, (2, ask[0]))
        return guided + (first - second) * self.cfg, negative


@dataclass(frozen=True)
class PerpNeg:
    """Perp-Neg (https://arxiv.org/abs/2304.04968): only that part of the negative prompt (side 1) counts which is at
    right angles to the positive one (0), both seen from the empty prompt (2)."""

    cfg: float
    neg_scale: float

    def __call__(self, point: Point, both: bool) -> tuple[Tensor, Tensor]:
        positive, negative, empty = point.estimates(0, 1, 2)
        positive, negative = point.prepare(positive, negative, self.cfg)
        denoised = perpendicular(positive, negative, empty, self.neg_scale, self.cfg)
        return point.finish(denoised, Seen(point, self.cfg, positive, negative, (0, 1))), negative


def perpendicular(positive: Tensor, negative: Tensor, empty: Tensor, neg_scale: float, cfg: float) -> Tensor:
    """A positive prompt that says what the empty one says has no direction: all of the negative one counts."""
    pos, neg = positive - empty, negative - empty
    length = pos.square().sum().clamp(min=torch.finfo(pos.dtype).tiny)
    perp = neg - pos * ((neg * pos).sum() / length)
    return empty + (pos - perp * neg_scale) * cfg
