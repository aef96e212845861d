"""From a model's predictions to a Denoiser: it evaluates prompts, and a rule makes one estimate of theirs.

It batches what can go into one call of the model and knows nothing of how the model is made or where it came from. The
sides of a guidance are lists of prompts; side 0 is what is wanted, 1 what is not, more are a rule's own (guiders.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from engine.families.base import Prediction, TextBatch
from engine.families.controls.base import Control, Residuals
from engine.families.parts.hook import Hooks
from engine.families.parts.patch import Acting, Around, Evaluation, Now, Patch, all_acting
from engine.families.parts.schedule import Schedule
from engine.sampling.conditioning import Condition, meet_areas, share_controls, with_defaults
from engine.sampling.prediction import PREDICTIONS


class Predict(Protocol):
    """(model input, timesteps (batch,), text, what controls add) -> eps, v ... of the input's shape"""

    def __call__(self, x: Tensor, timesteps: Tensor, text: TextBatch, control: Residuals | None = None) -> Tensor: ...


class Controls(Protocol):
    """(control, model input, timesteps, text, sigma, how many prompts are in the batch) -> what it adds, if anything"""

    def __call__(
        self, control: Control, x: Tensor, timesteps: Tensor, text: TextBatch, sigma: float, parts: int
    ) -> Residuals | None: ...


# Prompts of different length are repeated to a common one for one call, unless that makes one this much longer. Where
# text and picture attend to each other as one, a repeated prompt would weigh more: there it has to be of equal length.
LONGEST_REPEAT = 4

Conditioning = Sequence[Sequence[Any]]

# (point, whether the unconditional estimate is asked for) -> (denoised, unconditional denoised)
Rule = Callable[["Point", bool], tuple[Tensor, Tensor]]


class Guided:
    """A GuidedDenoiser of `rule` over the sides. `module` is what `predict` calls: patches act on it."""

    def __init__(
        self,
        predict: Predict,
        schedule: Schedule,
        prediction: Prediction,
        sides: Sequence[list[Condition]],
        rule: Rule,
        *,
        patches: Sequence[Patch] = (),
        module: nn.Module | None = None,
        now: Now | None = None,
        sigmas: Sequence[float] = (),
        joint_attention: bool = False,
        read: Callable[[Conditioning], list[Condition]] | None = None,
        interrupt_check: Callable[[], None] = lambda: None,
        controls: Controls | None = None,
        hooks: Callable[[Hooks, float], None] = lambda hooks, sigma: None,
    ) -> None:
        self.predict = predict
        self.schedule = schedule
        self.parametrisation = PREDICTIONS[prediction]
        self.sides = share_controls(meet_areas(sides))
        self.rule = rule
        self.patches = patches
        self.around_model = [patch.model for patch in patches if patch.model is not None]
        self.around_rule = [patch.rule for patch in patches if patch.rule is not None]
        self.aside = False  # whether a patch asks for something of its own
        self.module = module
        self.now = now or Now()
        self.sigmas = sigmas
        self.longest_repeat = 1 if joint_attention else LONGEST_REPEAT
        self.read = read
        self.interrupt_check = interrupt_check
        self.controls = controls
        self.hooks = hooks

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        both = any(patch.both_sides for patch in self.patches)
        evaluation = Evaluation("guided", x, sigma, self.sigmas)
        return _around(self.around_rule, evaluation, lambda: self.rule(Point(self, x, sigma), both)[0])

    def with_uncond(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        if not self.around_rule:
            return self.rule(Point(self, x, sigma), True)
        evaluation = Evaluation("guided and negative", torch.cat([x, x]), sigma, self.sigmas)
        both = _around(self.around_rule, evaluation, lambda: torch.cat(self.rule(Point(self, x, sigma), True)))
        denoised, uncond = both.chunk(2)
        return denoised, uncond

    def estimates(self, x: Tensor, sigma: float, sides: Sequence[int | None]) -> list[Tensor]:
        """One of each side; zeros for None and for a side that is not there."""
        lists = [self.sides[side] if side is not None and side < len(self.sides) else [] for side in sides]
        return self.weigh(x, sigma, lists, [side or 0 for side in sides])

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Within, a patch asks for something of its own, which is not compared with the run's evaluations."""
        before, self.aside = self.aside, True
        try:
            yield
        finally:
            self.aside = before

    def weigh(self, x: Tensor, sigma: float, lists: Sequence[list[Condition]], sides: Sequence[int]) -> list[Tensor]:
        """The weighted mean of the denoised latents of each list's conditions; zero where none counts."""
        self.interrupt_check()
        lists = [with_defaults([c for c in conditions if c.active(sigma)], x) for conditions in lists]
        active = [(i, c) for i, conditions in enumerate(lists) for c in conditions]
        sums = [torch.zeros_like(x) for _ in sides]
        weights = [torch.full_like(x, 1e-37) for _ in sides]  # nothing over nothing is nothing
        for group in _batches([condition for _, condition in active], self.longest_repeat):
            self.now.sides = tuple(sides[active[i][0]] for i in group)
            denoised = self._denoised(x, sigma, [active[i][1] for i in group])
            for i, estimate in zip(group, denoised, strict=True):
                side, condition = active[i]
                weight = condition.weight(x)
                part = condition.area.crop if condition.area else _whole
                part(sums[side]).add_(estimate * weight)
                part(weights[side]).add_(weight)
        return [total / weight for total, weight in zip(sums, weights, strict=True)]

    def _denoised(self, x: Tensor, sigma: float, conditions: list[Condition]) -> list[Tensor]:
        """One call of the model for conditions whose areas have one size."""
        parts = [c.area.crop(x) if c.area else x for c in conditions]
        stacked = torch.cat(parts)
        self.now.sigma, timestep = sigma, self.schedule.timestep(sigma)
        timesteps = torch.full((stacked.shape[0],), timestep, device=x.device)
        text = _cat([c.text_in_area(x) for c in conditions])
        model_input, control = self.parametrisation.input(stacked, sigma), conditions[0].control
        self.hooks(conditions[0].hooks, sigma)

        def answer() -> Tensor:
            if control is None or self.controls is None:
                return self.predict(model_input, timesteps, text).to(x)
            told = _cat([c.control_text_in_area(x) for c in conditions])
            residuals = self.controls(control, model_input, timesteps, told, sigma, len(conditions))
            return self.predict(model_input, timesteps, text, residuals).to(x)

        # a prompt's text is read once a run, so that it says which calls are comparable
        key = tuple((id(condition.text), condition.area) for condition in conditions)
        around = () if self.aside else self.around_model
        output = _around(around, Evaluation(key, model_input, sigma, self.sigmas), answer)
        denoised = self.parametrisation.denoised(stacked, output, sigma, timestep)
        return list(denoised.split(x.shape[0]))


@dataclass(frozen=True)
class Point:
    """One evaluation of a rule."""

    guided: Guided
    x: Tensor
    sigma: float

    def estimates(self, *sides: int | None) -> list[Tensor]:
        """Of each side; zeros for None and for a side that is not there."""
        return self.guided.estimates(self.x, self.sigma, sides)

    def guide(self, cond: Tensor, uncond: Tensor, cfg: float, sides: tuple[int, int | None] = (0, 1)) -> Tensor:
        """uncond + cfg * (cond - uncond), or what a patch has in its place, and what patches make of it."""
        seen = Seen(self, cfg, cond, uncond, sides)
        rules = [patch.cfg for patch in self.guided.patches if patch.cfg is not None]
        return self.finish(rules[-1](seen) if rules else uncond + (cond - uncond) * cfg, seen)

    def prepare(
        self, cond: Tensor, uncond: Tensor, cfg: float, sides: tuple[int, int | None] = (0, 1)
    ) -> tuple[Tensor, Tensor]:
        """What patches make of the estimates before the rule."""
        for patch in self.guided.patches:
            if patch.pre is not None:
                cond, uncond = patch.pre(Seen(self, cfg, cond, uncond, sides))
        return cond, uncond

    def finish(self, denoised: Tensor, seen: Seen) -> Tensor:
        """What patches make of the guided estimate."""
        for patch in self.guided.patches:
            if patch.post is not None:
                denoised = patch.post(seen, denoised)
        return denoised


@dataclass(frozen=True, eq=False)
class Seen:
    """The Guidance (families/parts/patch.py) that patches are shown."""

    point: Point
    cfg: float
    cond: Tensor
    uncond: Tensor
    sides: tuple[int, int | None]

    @property
    def x(self) -> Tensor:
        return self.point.x

    @property
    def sigma(self) -> float:
        return self.point.sigma

    @property
    def has_uncond(self) -> bool:
        return self.sides[1] is not None

    @property
    def schedule(self) -> Schedule:
        return self.point.guided.schedule

    @property
    def sigmas(self) -> Sequence[float]:
        return self.point.guided.sigmas

    def ask(self, conditioning: Conditioning) -> Tensor:
        guided = self.point.guided
        if guided.read is None:
            raise ValueError("a patch asks for prompts of its own, but this denoiser was made without a reader")
        with guided.asking():
            return guided.weigh(self.x, self.sigma, [guided.read(conditioning)], [len(guided.sides)])[0]

    def again(self, *acting: Acting, x: Tensor | None = None, negative: bool = False) -> Tensor:
        guided = self.point.guided
        side = self.sides[1] if negative else self.sides[0]
        if guided.module is None:
            raise ValueError("a patch acts on the module, but this denoiser was made without one")
        with all_acting(guided.module, guided.now, acting), guided.asking():
            return guided.estimates(self.x if x is None else x, self.sigma, [side])[0]


def _around(around: Sequence[Around], evaluation: Evaluation, run: Callable[[], Tensor]) -> Tensor:
    for outer in around:
        run = partial(outer, evaluation, run)
    return run()


def _whole(tensor: Tensor) -> Tensor:
    return tensor


def _batches(conditions: list[Condition], longest_repeat: int) -> list[list[int]]:
    """Indices of conditions that go into one call: same size of area, prompts that repeat to a common length."""
    groups: list[list[int]] = []
    for i, condition in enumerate(conditions):
        for group in groups:
            if all(_fits(condition, conditions[j], longest_repeat) for j in group):
                group.append(i)
                break
        else:
            groups.append([i])
    return groups


def _fits(a: Condition, b: Condition, longest_repeat: int) -> bool:
    size_a, size_b = ((c.area.height, c.area.width) if c.area else None for c in (a, b))
    tokens_a, tokens_b = a.text.cross.shape[1], b.text.cross.shape[1]
    same_kind = (a.text.pooled is None) == (b.text.pooled is None) and _shapes(a.text) == _shapes(b.text)
    repeats = math.lcm(tokens_a, tokens_b) // min(tokens_a, tokens_b)
    beside = a.control is b.control and a.hooks == b.hooks and _told(a) == _told(b)
    return size_a == size_b and same_kind and beside and repeats <= longest_repeat


def _told(condition: Condition) -> tuple[int, ...] | None:
    """The shape of another prompt for the control."""
    return None if condition.control_text is None else tuple(condition.control_text.cross.shape)


def _shapes(text: TextBatch) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in text.extra.items()}


def _cat(texts: list[TextBatch]) -> TextBatch:
    """One batch of all. Repeating a prompt's tokens does not change what attention makes of it."""
    tokens = math.lcm(*(text.cross.shape[1] for text in texts))
    pooled = [text.pooled for text in texts if text.pooled is not None]
    return TextBatch(
        cross=torch.cat([text.cross.repeat(1, tokens // text.cross.shape[1], 1) for text in texts]),
        pooled=torch.cat(pooled) if pooled else None,
        extra={key: torch.cat([text.extra[key] for text in texts]) for key in texts[0].extra},
    )
