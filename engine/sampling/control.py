"""ControlNets while a picture is made: their pictures in the size of the latent, their residuals for each call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from engine.families.base import Model, TextBatch
from engine.families.controls.base import Control, ControlOfOtherModel, NeedsVae, Residuals, added
from engine.families.parts.resizing import resized
from engine.families.parts.schedule import Schedule
from engine.models.manager import Lease, ModelManager
from engine.sampling.conditioning import repeat_to_batch


def controls_of(model: Model, sides: Sequence[Sequence[Sequence[Any]]]) -> list[Control]:
    """Every control of CONDITIONING links, each once. Raises ControlOfOtherModel, NeedsVae."""
    found: dict[int, Control] = {}
    for side in sides:
        for _, options in side:
            first = options.get("control")
            for control in first.chain() if isinstance(first, Control) else ():
                found.setdefault(id(control), control)
    for control in found.values():
        needs = control.net.kind.problem(control.net, model)
        if needs:
            title = model.family.spec.title
            raise ControlOfOtherModel(net=control.net.title, needs=needs, model=model.ref.title, title=title)
        if control.net.latent is not None and control.vae is None:
            raise NeedsVae(net=control.net.title)
    return list(found.values())


class Hints:
    """The pictures of controls as their nets see them, for each size of latent that they are asked for."""

    def __init__(self, models: ModelManager, model: Model, controls: Sequence[Control]) -> None:
        self._models = models
        self._made: dict[tuple[int, int, int], Tensor] = {}

    def of(self, control: Control, height: int, width: int) -> Tensor:
        """For a latent of that many cells, on the host."""
        key = (id(control), height, width)
        if key not in self._made:
            self._made[key] = self._make(control, height, width)
        return self._made[key]

    def _make(self, control: Control, height: int, width: int) -> Tensor:
        """As ComfyUI's: the nearest pixels, cut around the middle to the latent's proportions."""
        factor = control.net.factor
        pixels = control.image.movedim(-1, 1)[:, :3].float()
        if pixels.shape[1] == 1:
            pixels = pixels.expand(-1, 3, -1, -1)
        return resized(pixels, width * factor, height * factor, "nearest-exact", "center")


class ActingControls:
    """The `Controls` of a Guided denoiser, with the nets of a lease."""

    def __init__(self, model: Model, leased: Lease, schedule: Schedule, hints: Hints) -> None:
        self._config = model.config
        self._leased = leased
        self._schedule = schedule
        self._hints = hints

    def __call__(
        self, control: Control, x: Tensor, timesteps: Tensor, text: TextBatch, sigma: float, parts: int
    ) -> Residuals | None:
        said: Residuals = {}
        for one in control.chain():
            if self._active(one, sigma):
                said = added(said, self._residuals(one, x, timesteps, text, parts))
        return said or None

    def _residuals(self, control: Control, x: Tensor, timesteps: Tensor, text: TextBatch, parts: int) -> Residuals:
        net = control.net
        hint = self._hints.of(control, x.shape[-2], x.shape[-1]).to(x.device)
        hint = for_each_part(hint, x.shape[0], parts)
        module = self._leased[net.ref]
        residuals = net.kind.residuals(module, net, self._config, x, timesteps, text, hint)
        return {place: [tensor * control.strength for tensor in tensors] for place, tensors in residuals.items()}

    def _active(self, control: Control, sigma: float) -> bool:
        start, end = (self._schedule.percent_to_sigma(p) for p in (control.start_percent, control.end_percent))
        return end <= sigma <= start


def for_each_part(hint: Tensor, batch: int, parts: int) -> Tensor:
    """A batch of hints for a batch of `parts` prompts: each picture gets its own in every part, in turn where there
    are fewer."""
    each = repeat_to_batch(hint, batch // parts)
    return torch.cat([each] * parts)
