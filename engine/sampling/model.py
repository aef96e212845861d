"""From a GUIDER link to a Denoiser: leases the module, lets LoRAs and patches act beside it, reads the prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from engine.families.base import Model, TextBatch
from engine.families.parts.adapters import acting
from engine.families.parts.patch import Now, all_acting
from engine.families.parts.schedule import Schedule
from engine.models.manager import ModelManager
from engine.sampling.conditioning import ExtraConditions, read_conditioning
from engine.sampling.guidance import Guided
from engine.sampling.guiders import Guider

# Room for the activations, per number in a latent and side of the guidance. An estimate: 0.65 GB for SD 1.5 at 512 px.
WORKING_BYTES = 20_000


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
) -> Iterator[tuple[Guided, torch.device]]:
    """A denoiser for latents of that shape and the device it runs on; valid within the block. Models made for
    inpainting are told the mask (batch, 1, height, width of the latent) as well."""
    model, now = guider.model, Now()
    schedule = schedule_of(model)
    with (
        models.lease(model.ref, working=len(guider.sides) * latent.numel() * WORKING_BYTES) as leased,
        acting(leased[model.ref], model.adapters) as module,
        all_acting(module, now, (patch.acting for patch in model.patches)),
    ):
        placed = latent.to(leased.device)

        def extra(side: int) -> ExtraConditions:
            run: dict[str, Any] = {"prompt_type": "negative" if side == 1 else "positive"}
            if noise_mask is not None:
                run["noise_mask"] = noise_mask
            return lambda pooled, entry, start: model.family.extra_conditions(model, pooled, {**entry, **run}, start)

        def predict(x: Tensor, timesteps: Tensor, text: TextBatch) -> Tensor:
            return model.family.predict(module, x, timesteps, text)

        denoiser = Guided(
            predict,
            schedule,
            model.prediction,
            [read_conditioning(side, placed, schedule, extra(i)) for i, side in enumerate(guider.sides)],
            guider.rule,
            patches=model.patches,
            module=module,
            now=now,
            sigmas=sigmas,
            joint_attention=model.family.spec.joint_attention,
            interrupt_check=interrupt_check,
        )
        yield denoiser, leased.device
