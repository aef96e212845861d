"""From a MODEL link to a Denoiser: leases the module, lets its LoRAs act beside it, guides it by two prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from engine.families.base import Model, TextBatch
from engine.families.parts.adapters import acting
from engine.models.manager import ModelManager
from engine.sampling.conditioning import read_conditioning
from engine.sampling.guidance import Guided
from engine.sampling.schedule import DiscreteSchedule

Conditioning = Sequence[Sequence[Any]]

# Room for the activations, per number in a latent and side of the guidance. An estimate: 0.65 GB for SD 1.5 at 512 px.
WORKING_BYTES = 20_000


def schedule_of(model: Model) -> DiscreteSchedule:
    """The noise schedule the model was trained on."""
    return DiscreteSchedule.from_alphas_cumprod(model.family.alphas_cumprod(model))


@contextmanager
def guided(
    models: ModelManager,
    model: Model,
    positive: Conditioning,
    negative: Conditioning,
    cfg: float,
    latent: Tensor,
    interrupt_check: Callable[[], None],
) -> Iterator[tuple[Guided, torch.device]]:
    """A denoiser for latents of that shape and the device it runs on; valid within the block."""
    schedule = schedule_of(model)
    with (
        models.lease(model.ref, working=2 * latent.numel() * WORKING_BYTES) as leased,
        acting(leased[model.ref], model.adapters) as module,
    ):
        placed = latent.to(leased.device)

        def predict(x: Tensor, timesteps: Tensor, text: TextBatch) -> Tensor:
            return model.family.predict(module, x, timesteps, text)

        denoiser = Guided(
            predict,
            schedule,
            model.prediction,
            read_conditioning(positive, placed, schedule),
            read_conditioning(negative, placed, schedule),
            cfg,
            interrupt_check,
        )
        yield denoiser, leased.device
