"""CONDITIONING links as samplers need them: encoded prompts with where, when and how much each of them counts.

An entry's dict may hold `strength`, `area` (height, width, y, x in latent cells, or ("percentage", ...) of the
picture), `mask` with `mask_strength` and `set_area_to_bounds`, `start_percent` and `end_percent`, and `default`, as
ComfyUI's conditioning nodes write them; `control` is a Control, with `control_apply_to_uncond` for the other sides too.
`cross_attn_controlnet` and `pooled_output_controlnet` are another prompt for controls. `hooks` act on the denoiser
while the entry is evaluated, and `clip_start_percent` and `clip_end_percent` are the range of the encoding, where hooks
make several of one prompt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from engine.errors import GraphError
from engine.families.base import TextBatch
from engine.families.controls.base import Control
from engine.families.parts.hook import Hooks
from engine.families.parts.schedule import Schedule

# (pooled, an entry's dict, latent) -> TextBatch.extra: Family.extra_conditions of a model
ExtraConditions = Callable[[Tensor | None, Mapping[str, Any], Tensor], Mapping[str, Tensor]]

# Latent cells over which the border of an area fades, so that it leaves no seam.
FADE = 8
SMALLEST_AREA = 8


class AreaOutside(GraphError):
    en = (
        "A prompt's area begins {x} cells from the left and {y} from the top, but the latent has {width} x {height}: "
        "nothing of it lies in the picture. Move the area, or make the picture larger."
    )
    zh = (
        "提示词的区域从左侧第 {x} 格、顶部第 {y} 格开始，而潜变量只有 {width} x {height} 格：区域完全位于画面之外。"
        "请移动该区域，或增大画面尺寸。"
    )


@dataclass(frozen=True)
class Area:
    """A rectangle of the latent, in cells."""

    height: int
    width: int
    y: int
    x: int

    def crop(self, tensor: Tensor) -> Tensor:
        return tensor[..., self.y : self.y + self.height, self.x : self.x + self.width]

    def contains(self, other: Area) -> bool:
        inside_y = self.y <= other.y and other.y + other.height <= self.y + self.height
        return inside_y and self.x <= other.x and other.x + other.width <= self.x + self.width


@dataclass(frozen=True, eq=False)
class Condition:
    """One encoded prompt. It counts while sigma_start >= sigma >= sigma_end, with `weight` in its area."""

    text: TextBatch  # of the latent's batch size
    area: Area | None = None
    strength: float = 1.0
    mask: Tensor | None = None  # (batch or 1, height, width) of the whole latent, mask_strength included
    sigma_start: float = math.inf
    sigma_end: float = 0.0
    default: bool = False  # it counts where the others of its side leave something
    control: Control | None = None
    shares_control: bool = False  # the other sides' prompts get it as well
    control_text: TextBatch | None = None  # what the control is told in place of the prompt
    hooks: Hooks = ()  # what acts on the denoiser while it is evaluated

    @property
    def has_size(self) -> bool:
        """Whether it fits latents of one size alone."""
        return self.area is not None or self.mask is not None or "concat" in self.text.extra

    def active(self, sigma: float) -> bool:
        return self.sigma_end <= sigma <= self.sigma_start

    def text_in_area(self, x: Tensor) -> TextBatch:
        """The prompt for a call with the area's part of x; "concat" channels lie over the latent and are cut too."""
        return self._cut(self.text)

    def control_text_in_area(self, x: Tensor) -> TextBatch:
        return self._cut(self.text if self.control_text is None else self.control_text)

    def _cut(self, text: TextBatch) -> TextBatch:
        if self.area is None or "concat" not in text.extra:
            return text
        return replace(text, extra={**text.extra, "concat": self.area.crop(text.extra["concat"])})

    def weight(self, x: Tensor) -> Tensor:
        """How much it counts in each cell of its area: (batch or 1, 1, height, width)."""
        height, width = x.shape[-2:]
        area = self.area or Area(height, width, 0, 0)
        if self.mask is not None:
            return area.crop(self.mask)[:, None] * self.strength
        down = _fade(area.height, area.y > 0, area.y + area.height < height)
        across = _fade(area.width, area.x > 0, area.x + area.width < width)
        return (down[:, None] * across[None, :] * self.strength)[None, None].to(x)


def read_conditioning(
    conditioning: Sequence[Sequence[Any]], latent: Tensor, schedule: Schedule, extra: ExtraConditions
) -> list[Condition]:
    """The entries of a CONDITIONING link for a latent, on its device."""
    return [_read(entry[0], entry[1], latent, schedule, extra) for entry in conditioning]


def with_defaults(conditions: list[Condition], x: Tensor) -> list[Condition]:
    """Default conditions get what the weights of the others leave of 1; where that is nothing, they are left out."""
    if not any(condition.default for condition in conditions):
        return conditions
    left = x.new_ones(x.shape[0], *x.shape[-2:])
    for condition in conditions:
        if not condition.default:
            (condition.area.crop(left) if condition.area else left).sub_(condition.weight(x)[:, 0])
    left = left.clamp(min=0)
    rest = [replace(c, mask=left, strength=1.0) for c in conditions if c.default] if bool(left.any()) else []
    return [*(c for c in conditions if not c.default), *rest]


def meet_areas(sides: Sequence[list[Condition]]) -> list[list[Condition]]:
    """Where one side has a prompt for an area, the others are asked there as well, with their best fitting prompts."""
    met = [list(side) for side in sides]
    for i, side in enumerate(met):
        for j, other in enumerate(met):
            if i != j:
                other += _missing(side, other)
    return met


def share_controls(sides: Sequence[list[Condition]]) -> list[list[Condition]]:
    """Where the first side's prompts share their controls, those of another side that has none of its own get them in
    turn. Prompts with an area are left out, as in ComfyUI."""
    shared = [c.control for c in sides[0] if c.shares_control and c.control and c.area is None] if sides else []
    return [side if i == 0 else _with_controls(side, shared) for i, side in enumerate(sides)]


def _with_controls(side: list[Condition], shared: Sequence[Control]) -> list[Condition]:
    free = [i for i, c in enumerate(side) if c.area is None and c.control is None]
    taken = any(c.area is None and c.control is not None for c in side)
    given = {} if taken or not free else {free[i % len(free)]: control for i, control in enumerate(shared)}
    return [replace(c, control=given[i]) if i in given else c for i, c in enumerate(side)]


def _missing(asked: Iterable[Condition], there: list[Condition]) -> list[Condition]:
    added: list[Condition] = []
    for condition in asked:
        if condition.area is None:
            continue
        best = _smallest_around(condition.area, [*there, *added])
        if best is not None and best.area != condition.area:
            added.append(replace(condition, text=best.text, hooks=best.hooks))
    return added


def _smallest_around(area: Area, conditions: Iterable[Condition]) -> Condition | None:
    around = [c for c in conditions if c.area is None or c.area.contains(area)]
    return min(around, key=lambda c: math.inf if c.area is None else c.area.height * c.area.width, default=None)


def _read(
    cross: Tensor, options: Mapping[str, Any], latent: Tensor, schedule: Schedule, extra: ExtraConditions
) -> Condition:
    batch, (height, width) = latent.shape[0], (latent.shape[-2], latent.shape[-1])
    pooled = options.get("pooled_output")
    if pooled is not None:
        pooled = repeat_to_batch(pooled.to(latent.device), batch)
    more = {
        key: repeat_to_batch(value.to(latent.device), batch) for key, value in extra(pooled, options, latent).items()
    }
    text = TextBatch(repeat_to_batch(cross.to(latent.device), batch), pooled, more)
    area = area_of(options.get("area"), height, width)
    mask = options.get("mask")
    if mask is not None:
        mask = mask.to(latent.device, torch.float32).reshape(-1, 1, *mask.shape[-2:])
        if mask.shape[-2:] != (height, width):
            mask = torch.nn.functional.interpolate(mask, size=(height, width), mode="bilinear", align_corners=False)
        mask = repeat_to_batch(mask[:, 0], batch)
        if options.get("set_area_to_bounds"):
            area = _bounds(mask, height, width)
        mask = mask * options.get("mask_strength", 1.0)
    starts, ends = ([options.get(of + edge) for of in ("", "clip_")] for edge in ("start_percent", "end_percent"))
    return Condition(
        text,
        area,
        options.get("strength", 1.0),
        mask,
        min((schedule.percent_to_sigma(start) for start in starts if start is not None), default=math.inf),
        max((schedule.percent_to_sigma(end) for end in ends if end is not None), default=0.0),
        bool(options.get("default")),
        options.get("control"),
        options.get("control_apply_to_uncond", False),
        _control_text(options, text),
        options.get("hooks", ()),
    )


def _control_text(options: Mapping[str, Any], text: TextBatch) -> TextBatch | None:
    cross, pooled = options.get("cross_attn_controlnet"), options.get("pooled_output_controlnet")
    if cross is None:
        return None
    own = text.pooled if pooled is None else repeat_to_batch(pooled.to(text.cross.device), text.cross.shape[0])
    return TextBatch(repeat_to_batch(cross.to(text.cross.device), text.cross.shape[0]), own, text.extra)


def repeat_to_batch(tensor: Tensor, batch: int) -> Tensor:
    """The first axis cut or repeated to `batch`."""
    if tensor.shape[0] >= batch:
        return tensor[:batch]
    return tensor.repeat(math.ceil(batch / tensor.shape[0]), *[1] * (tensor.ndim - 1))[:batch]


def area_of(area: Sequence[Any] | None, height: int, width: int) -> Area | None:
    """An entry's `area` in cells of a latent of that size."""
    if area is None:
        return None
    if area[0] == "percentage":
        h, w, y, x = area[1:]
        area = (max(1, round(h * height)), max(1, round(w * width)), round(y * height), round(x * width))
    h, w, y, x = area
    if y >= height or x >= width:
        raise AreaOutside(x=x, y=y, width=width, height=height)
    return Area(min(h, height - y), min(w, width - x), y, x)


def _bounds(mask: Tensor, height: int, width: int) -> Area:
    """The smallest area that holds all of a mask, at least 8 x 8."""
    ys, xs = torch.nonzero(mask.abs().amax(dim=0), as_tuple=True)
    if len(ys) == 0:
        return Area(min(SMALLEST_AREA, height), min(SMALLEST_AREA, width), 0, 0)
    y, x = int(ys.min()), int(xs.min())
    tall, wide = max(SMALLEST_AREA, int(ys.max()) - y + 1), max(SMALLEST_AREA, int(xs.max()) - x + 1)
    return Area(min(tall, height - y), min(wide, width - x), y, x)


def _fade(length: int, at_start: bool, at_end: bool) -> Tensor:
    """Ones that rise from nothing at the ends that lie within the picture."""
    weights = torch.ones(length)
    reach = min(FADE, length // 4)
    ramp = torch.arange(1, reach + 1) / reach if reach else torch.ones(0)
    if at_start:
        weights[:reach] *= ramp
    if at_end:
        weights[length - reach :] *= ramp.flip(0)
    return weights
