"""What a denoiser is given and what its answer says: its input from x and sigma, the clean latent from its output.

x = alpha * clean + sigma * noise as the schedule has it (engine/families/parts/schedule.py). Data has a deviation of 1
but in EDM, where it is 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from engine.families.base import Prediction

EDM_DATA = 0.5  # https://arxiv.org/abs/2206.00364, table 1
LCM_DATA, LCM_TIME = 0.5, 10.0  # https://arxiv.org/abs/2310.04378: boundary condition over timesteps times 10


@dataclass(frozen=True)
class Parametrisation:
    """input(x, sigma) -> the model's input; denoised(x, output, sigma, timestep) -> the clean latent."""

    input: Callable[[Tensor, float], Tensor]
    denoised: Callable[[Tensor, Tensor, float, float], Tensor]


def _unit_variance(x: Tensor, sigma: float) -> Tensor:
    return x / math.sqrt(sigma**2 + 1)


def _as_it_is(x: Tensor, sigma: float) -> Tensor:
    return x


def _edm_input(x: Tensor, sigma: float) -> Tensor:
    return x / math.sqrt(sigma**2 + EDM_DATA**2)


def _cosmos_input(x: Tensor, sigma: float) -> Tensor:
    return x / (sigma + 1)


def _eps(x: Tensor, output: Tensor, sigma: float, timestep: float) -> Tensor:
    return x - output * sigma


def _v(x: Tensor, output: Tensor, sigma: float, timestep: float) -> Tensor:
    """Progressive distillation (https://arxiv.org/abs/2202.00512), in k-diffusion's scale."""
    return x / (sigma**2 + 1) - output * (sigma / math.sqrt(sigma**2 + 1))


def _x0(x: Tensor, output: Tensor, sigma: float, timestep: float) -> Tensor:
    return output


def _edm(x: Tensor, output: Tensor, sigma: float, timestep: float) -> Tensor:
    variance = sigma**2 + EDM_DATA**2
    return x * (EDM_DATA**2 / variance) + output * (sigma * EDM_DATA / math.sqrt(variance))


def _lcm(x: Tensor, output: Tensor, sigma: float, timestep: float) -> Tensor:
    scaled = timestep * LCM_TIME
    variance = scaled**2 + LCM_DATA**2
    return (x - output * sigma) * (scaled / math.sqrt(variance)) + x * (LCM_DATA**2 / variance)


def _cosmos(x: Tensor, output: Tensor, sigma: float, timestep: float) -> Tensor:
    """A flow model's answer in k-diffusion's scale."""
    return (x - output * sigma) / (sigma + 1)


PREDICTIONS: Mapping[Prediction, Parametrisation] = {
    "eps": Parametrisation(_unit_variance, _eps),
    "v": Parametrisation(_unit_variance, _v),
    "x0": Parametrisation(_unit_variance, _x0),
    "img_to_img": Parametrisation(_as_it_is, _x0),
    "lcm": Parametrisation(_unit_variance, _lcm),
    "edm": Parametrisation(_edm_input, _edm),
    "flow": Parametrisation(_as_it_is, _eps),
    "cosmos_rflow": Parametrisation(_cosmos_input, _cosmos),
}
