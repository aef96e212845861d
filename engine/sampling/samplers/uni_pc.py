"""UniPC (https://arxiv.org/abs/2302.04867): a predictor and a corrector of any order that share their evaluations."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from torch import Tensor

from engine.sampling.denoiser import Callback, Denoiser, NoiseSource, Step, silent
from engine.sampling.samplers.dpmpp import log_time

# The paper's update divides by the last sigma; this one stands for 0.
LAST_SIGMA = 0.001


def sample_uni_pc(
    denoiser: Denoiser, x: Tensor, sigmas: list[float], *, callback: Callback = silent, noise: NoiseSource
) -> Tensor:
    """Multistep UniPC-3 with B(h) = h (bh1): few steps without guidance."""
    return _sample(denoiser, x, sigmas, callback, "bh1")


def sample_uni_pc_bh2(
    denoiser: Denoiser, x: Tensor, sigmas: list[float], *, callback: Callback = silent, noise: NoiseSource
) -> Tensor:
    """Multistep UniPC-3 with B(h) = expm1(h) (bh2): what the paper recommends with guidance."""
    return _sample(denoiser, x, sigmas, callback, "bh2")


def _sample(
    denoiser: Denoiser, x: Tensor, sigmas: list[float], callback: Callback, variant: Literal["bh1", "bh2"]
) -> Tensor:
    steps = len(sigmas) - 1
    if sigmas[-1] == 0:
        sigmas = [*sigmas[:-1], LAST_SIGMA]
    max_order = min(3, steps - 1)
    denoised = denoiser(x, sigmas[0])
    callback(Step(0, steps, sigmas[0], x, denoised))
    known = [(log_time(sigmas[0]), denoised)]  # (time, denoised) of the last evaluations, the newest last
    for i in range(1, steps + 1):
        t = log_time(sigmas[i])
        order = max(1, min(max_order, i, steps + 1 - i))
        step = _Update(known, t, order, variant)
        base = x * math.exp(-step.h) - known[-1][1] * math.expm1(-step.h)
        x = base + step.predict()
        if i == steps:
            return x
        denoised = denoiser(x, sigmas[i])
        x = base + step.correct(denoised)
        callback(Step(i, steps, sigmas[i], x, denoised))
        known = [*known, (t, denoised)][-max(1, max_order) :]
    return x


class _Update:
    """One step of order p: equations 3, 5 and 7 of the paper, for a model that predicts the clean latent."""

    def __init__(self, known: list[tuple[float, Tensor]], t: float, order: int, variant: Literal["bh1", "bh2"]) -> None:
        t_0, self.denoised_0 = known[-1]
        self.h = t - t_0
        earlier = known[-2 : -order - 1 : -1]  # the newest first
        ratios = [(t_i - t_0) / self.h for t_i, _ in earlier]
        self.differences = [(d - self.denoised_0) / r for r, (_, d) in zip(ratios, earlier, strict=True)]
        hh = -self.h
        self.b_h = hh if variant == "bh1" else math.expm1(hh)
        # R_p(h) rho = b_p: powers of the ratios against phi functions.
        self.matrix = np.vander([*ratios, 1.0], order, increasing=True).T
        phi, factorial, b = math.expm1(hh) / hh - 1, 1, []
        for k in range(1, order + 1):
            b.append(phi * factorial / self.b_h)
            factorial *= k + 1
            phi = phi / hh - 1 / factorial
        self.b = np.array(b)

    def predict(self) -> Tensor:
        """What UniP-p adds to the first-order step."""
        if not self.differences:
            return self.denoised_0 * 0
        # The paper's closed form of order 2 holds for every ratio up to a higher order.
        rhos = [0.5] if len(self.differences) == 1 else np.linalg.solve(self.matrix[:-1, :-1], self.b[:-1]).tolist()
        return self._weighted(rhos)

    def correct(self, denoised: Tensor) -> Tensor:
        """What UniC-p adds to the first-order step, given the evaluation at the predicted point."""
        rhos = [0.5] if not self.differences else np.linalg.solve(self.matrix, self.b).tolist()
        return self._weighted(rhos[:-1]) - (denoised - self.denoised_0) * (self.b_h * rhos[-1])

    def _weighted(self, rhos: list[float]) -> Tensor:
        total = self.denoised_0 * 0
        for rho, difference in zip(rhos, self.differences, strict=True):
            total = total - difference * (self.b_h * rho)
        return total
