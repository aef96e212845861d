"""`latent_preview`: what a pack's own sampling shows while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from engine.custom.facade import within_a_call
from engine.nodes.sampling import shown
from engine.sampling.denoiser import Step

MAX_PREVIEW_RESOLUTION = 512


def prepare_callback(
    model: Any, steps: int, x0_output_dict: dict[str, Any] | None = None, **_: Any
) -> Callable[[int, Tensor, Tensor, int], None]:
    """f(step, denoised, x, total): tells how far it is, shows a picture, and lets an interrupt through."""
    show = shown(within_a_call("latent_preview.prepare_callback"), model)

    def callback(step: int, x0: Tensor, x: Tensor, total_steps: int) -> None:
        if x0_output_dict is not None:
            x0_output_dict["x0"] = x0
        show(Step(step, total_steps, 0.0, x, x0))

    return callback
