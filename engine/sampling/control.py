"""ControlNets while a picture is made: their pictures in the size of the latent, their residuals for each call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from engine.families.base import LatentFormat, Model, TextBatch, Vae
from engine.families.controls.base import (
    Control,
    ControlOfOtherModel,
    NeedsVae,
    Residuals,
    VaeOfOtherModel,
    added,
)
from engine.families.parts.resizing import resized
from engine.families.parts.schedule import Schedule
from engine.models.manager import Lease, ModelManager
from engine.sampling.conditioning import repeat_to_batch

ENCODE_WORKING = 2800  # bytes of activations per pixel: the encoder of SD 1.x in float32, at 512 px


def controls_of(model: Model, sides: Sequence[Sequence[Sequence[Any]]]) -> list[Control]:
    """Every control of CONDITIONING links, each once. Raises ControlOfOtherModel, NeedsVae,
    VaeOfOtherModel."""
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
        latent, vae = control.net.latent, control.vae
        if latent is not None and vae is None:
            raise NeedsVae(net=control.net.title)
        if latent is not None and vae is not None and latent.channels != vae.latent.channels:
            about = {"need": latent.channels, "got": vae.latent.channels, "title": model.family.spec.title}
            raise VaeOfOtherModel(net=control.net.title, vae=vae.ref.title, **about)
    return list(found.values())


class Hints:
    """The pictures of controls as their nets see them, for each size of latent that they are asked for."""

    def __init__(self, models: ModelManager, controls: Sequence[Control]) -> None:
        self._models = models
        self._controls = controls
        self._made: dict[tuple[int, int, int], Tensor] = {}

    def prepare(self, height: int, width: int) -> None:
        """Those that a VAE makes, for latents of that many cells: before the denoiser takes its room."""
        for control in self._controls:
            if control.net.latent is not None:
                self.of(control, height, width)

    def of(self, control: Control, height: int, width: int) -> Tensor:
        """For a latent of that many cells, on the host."""
        key = (id(control), height, width)
        if key not in self._made:
            net, vae = control.net, control.vae
            if net.latent is None or vae is None:
                down, across = (-(-side * net.factor // net.multiple) * net.multiple for side in (height, width))
                self._made[key] = _pixels(control, down, across)
            else:
                self._made[key] = self._latents(control, net.latent, vae, height, width)
        return self._made[key]

    def _latents(self, control: Control, latent: LatentFormat, vae: Vae, height: int, width: int) -> Tensor:
        factor, offset = control.net.levels
        pixels = _pixels(control, height * vae.factor, width * vae.factor) * factor + offset
        working = pixels.shape[-2] * pixels.shape[-1] * ENCODE_WORKING
        with self._models.lease(vae.ref, working=working) as leased:
            module, device = leased[vae.ref], leased.device
            made = [vae.family.encode_image(module, vae, one.to(device) * 2 - 1).cpu() for one in pixels.split(1)]
        hint = latent.scaled(vae.latent.unscaled(torch.cat(made).float()))
        if not control.net.masked:
            return hint
        mask = torch.ones(1, 1, height, width) if control.mask is None else control.mask.float().cpu()
        mask = resized(mask, width, height, "nearest-exact", "center")
        return torch.cat([hint, repeat_to_batch(mask, len(hint))], dim=1)


def _pixels(control: Control, height: int, width: int) -> Tensor:
    """As ComfyUI's: the nearest pixels, cut around the middle to the latent's proportions."""
    pixels = control.image.movedim(-1, 1)[:, :3].float()
    if pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1)
    return resized(pixels, width, height, "nearest-exact", "center")


class ActingControls:
    """The `Controls` of a Guided denoiser, with the nets of a lease."""

    def __init__(self, model: Model, leased: Lease, schedule: Schedule, hints: Hints) -> None:
        self._model = model
        self._denoiser = leased[model.ref]
        self._leased = leased
        self._schedule = schedule
        self._hints = hints
        self._still: dict[tuple[Any, ...], Residuals] = {}

    def __call__(
        self, control: Control, x: Tensor, timesteps: Tensor, text: TextBatch, sigma: float, parts: int
    ) -> Residuals | None:
        said: Residuals = {}
        for one in control.chain():
            if self._active(one, sigma):
                said = added(said, self._residuals(one, x, timesteps, text, parts))
        return said or None

    def _residuals(self, control: Control, x: Tensor, timesteps: Tensor, text: TextBatch, parts: int) -> Residuals:
        net, key = control.net.of(self._model), (id(control), *x.shape, parts)
        residuals = self._still.get(key)
        if residuals is None:
            hint = self._hints.of(control, x.shape[-2], x.shape[-1]).to(x.device)
            hint = for_each_part(hint, x.shape[0], parts)
            module = self._leased[net.ref]
            residuals = net.kind.residuals(module, net, self._denoiser, x, timesteps, text, hint)
            if net.still:
                self._still[key] = residuals
        return scaled(residuals, control.strength)

    def _active(self, control: Control, sigma: float) -> bool:
        start, end = (self._schedule.percent_to_sigma(p) for p in (control.start_percent, control.end_percent))
        return end <= sigma <= start


def for_each_part(hint: Tensor, batch: int, parts: int) -> Tensor:
    """A batch of hints for a batch of `parts` prompts: each picture gets its own in every part, in turn where there
    are fewer."""
    each = repeat_to_batch(hint, batch // parts)
    return torch.cat([each] * parts)


def scaled(residuals: Residuals, strength: float) -> Residuals:
    """Each tensor once, however many blocks it is for: Flux has 57, and 25 MB for each at 1024 px."""
    if strength == 1.0:
        return residuals
    made = {id(tensor): tensor * strength for tensors in residuals.values() for tensor in _each_once(tensors)}
    return {place: [made[id(tensor)] for tensor in tensors] for place, tensors in residuals.items()}


def _each_once(tensors: Sequence[Tensor]) -> list[Tensor]:
    return list({id(tensor): tensor for tensor in tensors}.values())
