"""From a GUIDER link to a Denoiser: leases the module, lets LoRAs and patches act beside it, reads the prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from engine.families.base import Model, TextBatch
from engine.families.parts.adapters import acting
from engine.families.parts.patch import Now, all_acting
from engine.families.parts.schedule import Schedule
from engine.models.manager import ModelManager
from engine.sampling.conditioning import read_conditioning
from engine.sampling.guidance import Guided
from engine.sampling.guiders import Guider

# Room for the activations, per number in a latent and side of the guidance. An estimate: 0.65 GB for SD 1.5 at 512 px.
WORKING_BYTES = 20_000


def schedule_of(model: Model) -> Schedule:
    """The noise schedule the model was trained on, or what a patch says instead."""
    return model.schedule or model.family.schedule(model)


@contextmanager
def guided(
    models: ModelManager, guider: Guider, latent: Tensor, sigmas: Sequence[float], interrupt_check: Callable[[], None]
) -> Iterator[tuple[Guided, torch.device]]:
    """A denoiser for latents of that shape and the device it runs on; valid within the block."""
    model, now = guider.model, Now()
    schedule, extra = schedule_of(model), partial(model.family.extra_conditions, model)
    with (
        models.lease(model.ref, working=len(guider.sides) * latent.numel() * WORKING_BYTES) as leased,
        acting(leased[model.ref], model.adapters) as module,
        all_acting(module, now, (patch.acting for patch in model.patches)),
    ):
        placed = latent.to(leased.device)

        def predict(x: Tensor, timesteps: Tensor, text: TextBatch) -> Tensor:
            return model.family.predict(module, x, timesteps, text)

        denoiser = Guided(
            predict,
            schedule,
            model.prediction,
            [read_conditioning(side, placed, schedule, extra) for side in guider.sides],
            guider.rule,
            patches=model.patches,
            module=module,
            now=now,
            sigmas=sigmas,
            interrupt_check=interrupt_check,
        )
        yield denoiser, leased.device
