"""From a GUIDER link to a Denoiser: leases the module, lets LoRAs and patches act beside it, reads the prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from engine.families.base import Model, TextBatch
from engine.families.controls.base import Residuals
from engine.families.parts.adapters import acting
from engine.families.parts.patch import Now, all_acting
from engine.families.parts.schedule import Schedule
from engine.models.manager import ModelManager
from engine.sampling.conditioning import Condition, read_conditioning
from engine.sampling.control import ActingControls, Hints, controls_of
from engine.sampling.guidance import Conditioning, Guided
from engine.sampling.guiders import Guider
from engine.sampling.hooks import acting_hooks, hooks_of
from engine.sampling.prompts import check_prompts
from engine.sampling.room import working_bytes


def schedule_of(model: Model) -> Schedule:
    """The noise schedule the model was trained on, or what a patch says instead."""
    return model.schedule or model.family.schedule(model)


@contextmanager
def guided(
    models: ModelManager,
    guider: Guider,
    latent: Tensor,
    sigmas: Sequence[float],
    interrupt_check: Callable[[], None],
    noise_mask: Tensor | None = None,
    growth: float = 1.0,
) -> Iterator[tuple[Guided, torch.device]]:
    """A denoiser for latents of that shape, whose sides may grow so much, and the device it runs on; valid within the
    block. Models made for inpainting are told the mask (batch, 1, height, width of the latent) as well."""
    model, now = guider.model, Now()
    schedule = schedule_of(model)
    controls = controls_of(model, guider.sides)
    for conditioning in guider.sides:
        check_prompts(model, conditioning)
    working = working_bytes(models, model, guider.sides, latent, controls, growth)
    hints = Hints(models, controls)
    hints.prepare(latent.shape[-2], latent.shape[-1])
    with (
        models.lease(model.ref, *(control.net.of(model).ref for control in controls), working=working) as leased,
        acting(leased[model.ref], model.adapters) as module,
        all_acting(module, now, (patch.acting for patch in model.patches)),
        acting_hooks(models, model, module, schedule, hooks_of(guider.sides)) as hooks,
    ):
        placed = latent.to(leased.device)

        def read(conditioning: Conditioning, side: int = 1) -> list[Condition]:
            check_prompts(model, conditioning)  # those of patches as well
            about: dict[str, Any] = {"prompt_type": "negative" if side else "positive"}
            masked = {} if noise_mask is None else {"noise_mask": noise_mask}

            def extra(pooled: Tensor | None, entry: Mapping[str, Any], start: Tensor) -> Mapping[str, Tensor]:
                return model.family.extra_conditions(model, pooled, {**about, **entry, **masked}, start)

            return read_conditioning(conditioning, placed, schedule, extra)

        def predict(x: Tensor, timesteps: Tensor, text: TextBatch, control: Residuals | None = None) -> Tensor:
            return model.family.predict(module, x, timesteps, text, control)

        denoiser = Guided(
            predict,
            schedule,
            model.prediction,
            [read(conditioning, side) for side, conditioning in enumerate(guider.sides)],
            guider.rule,
            patches=model.patches,
            module=module,
            now=now,
            sigmas=sigmas,
            joint_attention=model.family.spec.joint_attention,
            read=read,
            interrupt_check=interrupt_check,
            controls=ActingControls(model, leased, schedule, hints) if controls else None,
            hooks=hooks,
        )
        yield denoiser, leased.device
