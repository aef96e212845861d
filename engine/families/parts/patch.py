"""What a patch node puts beside a model: it acts for the time of a run, and the shared module is as it was afterwards.

A `Patch` has any of these parts; several stack in their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

if TYPE_CHECKING:
    from engine.families.parts.schedule import Schedule


@dataclass
class Now:
    """The call of the model that is under way, for those who act on its layers. One object a run, changed by it."""

    sigma: float = math.inf
    sides: tuple[int, ...] = ()  # the side of the guidance that each equal part of the batch belongs to; 0 is positive


# acting(module, now): hooks on the module within the block
Acting = Callable[[nn.Module, Now], AbstractContextManager[None]]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Something that is asked at each sigma of a run. key: the same for what is comparable from sigma to sigma."""

    key: Hashable
    x: Tensor
    sigma: float
    sigmas: Sequence[float]  # of the whole run


# (evaluation, what makes the answer) -> the answer, of the shape of its x
Around = Callable[[Evaluation, Callable[[], Tensor]], Tensor]


class Guidance(Protocol):
    """One point of a run as guidance functions see it. Estimates are of the clean latent, all of x's shape."""

    @property
    def x(self) -> Tensor: ...
    @property
    def sigma(self) -> float: ...
    @property
    def cfg(self) -> float: ...
    @property
    def cond(self) -> Tensor: ...
    @property
    def uncond(self) -> Tensor:
        """Zeros where no negative prompt was evaluated: `has_uncond` says."""
        ...

    @property
    def has_uncond(self) -> bool: ...
    @property
    def schedule(self) -> Schedule: ...
    @property
    def sigmas(self) -> Sequence[float]:
        """Of the whole run."""
        ...

    def ask(self, conditioning: Sequence[Sequence[Any]]) -> Tensor:
        """The estimate of other prompts: a CONDITIONING link."""
        ...

    def again(self, *acting: Acting, x: Tensor | None = None, negative: bool = False) -> Tensor:
        """One more evaluation of the positive (or negative) prompts, of x unless another is given, with something more
        acting on the module."""
        ...


@dataclass(frozen=True, eq=False)
class Patch:
    """title: what it is, for messages.

    acting: on the module, while it runs.
    model: around each call of the model: its input and what it answers, before that is read as an estimate.
    rule: around the guided estimate: x and the denoised latent.
    pre: (guidance) -> (cond, uncond) in place of the estimates.
    cfg: (guidance) -> denoised in place of uncond + cfg * (cond - uncond). The last patch that has one counts.
    post: (guidance, denoised) -> denoised, one after another.
    mask: (mask, guidance's schedule, sigma, sigmas of the run) -> mask, for runs with a noise mask.
    both_sides: the negative prompt is evaluated at cfg 1 as well.
    """

    title: str
    acting: Acting | None = None
    model: Around | None = None
    rule: Around | None = None
    pre: Callable[[Guidance], tuple[Tensor, Tensor]] | None = None
    cfg: Callable[[Guidance], Tensor] | None = None
    post: Callable[[Guidance, Tensor], Tensor] | None = None
    mask: Callable[[Tensor, Schedule, float, Sequence[float]], Tensor] | None = None
    both_sides: bool = False


def all_acting(module: nn.Module, now: Now, acting: Iterable[Acting | None]) -> ExitStack:
    """A block in which all of them act; those that are None don't."""
    with ExitStack() as stack:
        for act in acting:
            if act is not None:
                stack.enter_context(act(module, now))
        return stack.pop_all()
