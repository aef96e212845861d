"""A sampler of a pack, f(model, x, sigmas, extra_args, callback, disable, **options), as a SAMPLER link."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.custom.links import missing
from engine.sampling.denoiser import Callback, GuidedDenoiser, NoiseSource, Step, silent
from engine.sampling.samplers.table import Sampler


@dataclass(frozen=True, init=False)
class PackSampler(Sampler):
    def __init__(
        self,
        sampler_function: Callable[..., Tensor],
        extra_options: Mapping[str, Any] | None = None,
        inpaint_options: Mapping[str, Any] | None = None,
    ) -> None:
        if inpaint_options:
            raise ValueError(f"comfy.samplers.KSAMPLER: inpaint_options ({', '.join(inpaint_options)}) are not offered")
        super().__init__(_adapted(sampler_function, dict(extra_options or {})))


class Denoising:
    """`model` of such a function: model(x, sigma) -> denoised, the guidance in it."""

    def __init__(self, denoiser: GuidedDenoiser) -> None:
        self._denoiser = denoiser

    def __call__(self, x: Tensor, sigma: Any, **extra_args: Any) -> Tensor:
        return self._denoiser(x, float(torch.as_tensor(sigma).reshape(-1)[0]))

    def __getattr__(self, name: str) -> Any:
        raise missing("The model that a sampler function is given", name, "nothing but model(x, sigma)")


def _adapted(function: Callable[..., Tensor], options: dict[str, Any]) -> Callable[..., Tensor]:
    def sample_of_a_pack(
        denoiser: GuidedDenoiser,
        x: Tensor,
        sigmas: Sequence[float],
        *,
        callback: Callback = silent,
        noise: NoiseSource | None = None,
    ) -> Tensor:
        def heard(told: Mapping[str, Any]) -> None:
            sigma = float(torch.as_tensor(told["sigma"]).reshape(-1)[0])
            callback(Step(int(told["i"]), len(sigmas) - 1, sigma, told["x"], told["denoised"]))

        tensor = torch.tensor(sigmas, device=x.device, dtype=x.dtype)
        return function(
            Denoising(denoiser), x, tensor, extra_args={"model_options": {}}, callback=heard, disable=True, **options
        )

    sample_of_a_pack.__name__ = str(getattr(function, "__name__", "sample_of_a_pack"))
    return sample_of_a_pack
