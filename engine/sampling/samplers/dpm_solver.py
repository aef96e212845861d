"""DPM-Solver (https://arxiv.org/abs/2206.00927) in t = -log sigma: steps of order 1 to 3, with fixed and adaptive size.

Forms and step size control are those of k-diffusion (MIT, Katherine Crowson).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.sampling.denoiser import Callback, Denoiser, NoiseSource, Step, silent
from engine.sampling.samplers.dpmpp import log_time
from engine.sampling.samplers.euler import ancestral_step

Noise = Callable[[Tensor, float], Tensor]  # (x, t) -> the noise in x
MOST_REJECTED = 100  # steps one after another; each may be a fifth of the one before


def sample_dpm_fast(
    denoiser: Denoiser, x: Tensor, sigmas: list[float], *, callback: Callback = silent, noise: NoiseSource
) -> Tensor:
    """DPM-Solver-Fast: as many evaluations as steps, in third-order steps of one size in t.

    Takes from `sigmas` their ends and number alone, and ends at the last one above 0.
    """
    t_start, t_end = _ends(sigmas)
    evaluations = len(sigmas) - 1
    steps = evaluations // 3 + 1
    rest = evaluations % 3
    orders = [3] * (steps - 1) + [rest] if rest else [3] * (steps - 2) + [2, 1]
    eps = _noise_of(denoiser)
    for i, order in enumerate(orders):
        t, t_next = (t_start + (t_end - t_start) * k / steps for k in (i, i + 1))
        e = eps(x, t)
        callback(Step(i, steps, _sigma(t), x, x - e * _sigma(t)))
        if order == 1:
            x = _step_1(x, t, t_next, e)
        elif order == 2:
            x = _step_2(eps, x, t, t_next, e)
        else:
            x = _step_3(eps, x, t, t_next, e)
    return x


def sample_dpm_adaptive(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: list[float],
    *,
    callback: Callback = silent,
    noise: NoiseSource,
    order: int = 3,
    rtol: float = 0.05,
    atol: float = 0.0078,
    h_init: float = 0.05,
    pcoeff: float = 0.0,
    icoeff: float = 1.0,
    dcoeff: float = 0.0,
    accept_safety: float = 0.81,
    eta: float = 0.0,
    s_noise: float = 1.0,
) -> Tensor:
    """DPM-Solver-12 and -23 with steps as large as the tolerances allow; a PID controller sets their size.

    Takes from `sigmas` their ends alone. The number of steps is not known before: total is how far t has come in
    hundredths.
    """
    t_start, t_end = _ends(sigmas)
    eps = _noise_of(denoiser)
    control = _StepSize(h_init, pcoeff, icoeff, dcoeff, 1.5 if eta else order, accept_safety)
    s, x_prev, rejected = t_start, x, 0
    while s < t_end - 1e-5:
        t = min(t_end, s + control.h)
        t_down, up = t, 0.0
        if eta:
            down, _ = ancestral_step(_sigma(s), _sigma(t), eta)
            t_down = min(t_end, log_time(down))
            up = math.sqrt(_sigma(t) ** 2 - _sigma(t_down) ** 2)
        e = eps(x, s)
        done = int(100 * (s - t_start) / (t_end - t_start))
        callback(Step(done, 100, _sigma(s), x, x - e * _sigma(s)))
        if order == 2:
            low, high = _step_1(x, s, t_down, e), _step_2(eps, x, s, t_down, e)
        else:
            e_1 = eps(_part(x, s, t_down, 1 / 3, e), s + (t_down - s) / 3)  # both steps ask for it
            low, high = _step_2(eps, x, s, t_down, e, 1 / 3, e_1), _step_3(eps, x, s, t_down, e, e_1)
        tolerance = torch.maximum(torch.full_like(low, atol), torch.maximum(low.abs(), x_prev.abs()) * rtol)
        error = float(torch.linalg.norm((low - high) / tolerance)) / math.sqrt(x.numel())
        if control.accepts(error):
            x_prev = low
            x = high + noise(_sigma(s), _sigma(t)) * (s_noise * up) if up else high
            s, rejected = t, 0
            continue
        rejected += 1
        if rejected == MOST_REJECTED:
            raise ArithmeticError(f"no step of {rejected} was accepted")
    return x


@dataclass
class _StepSize:
    """A PID controller of the step h (Hairer and Wanner, Solving ODEs II, IV.2; torchdiffeq's and torchsde's)."""

    h: float
    pcoeff: float
    icoeff: float
    dcoeff: float
    order: float
    accept_safety: float
    _inverse_errors: list[float] = field(default_factory=list)

    def accepts(self, error: float) -> bool:
        """Whether a step of that error stands; sets the next h."""
        inverse = 1 / (error + 1e-8)
        errors = [inverse, *(self._inverse_errors[1:] or [inverse, inverse])]
        p, i, d = self.pcoeff, self.icoeff, self.dcoeff
        powers = ((p + i + d) / self.order, -(p + 2 * d) / self.order, d / self.order)
        factor = math.prod(e**b for e, b in zip(errors, powers, strict=True))
        factor = 1 + math.atan(factor - 1)
        self.h *= factor
        accepted = factor >= self.accept_safety
        self._inverse_errors = [errors[0], errors[0], errors[1]] if accepted else errors
        return accepted


def _sigma(t: float) -> float:
    return math.exp(-t)


def _ends(sigmas: list[float]) -> tuple[float, float]:
    return log_time(sigmas[0]), log_time(sigmas[-1] if sigmas[-1] > 0 else sigmas[-2])


def _noise_of(denoiser: Denoiser) -> Noise:
    def eps(x: Tensor, t: float) -> Tensor:
        return (x - denoiser(x, _sigma(t))) / _sigma(t)

    return eps


def _part(x: Tensor, t: float, t_next: float, r: float, e: Tensor) -> Tensor:
    """A first-order step over the part r of the way."""
    h = (t_next - t) * r
    return x - e * (_sigma(t + h) * math.expm1(h))


def _step_1(x: Tensor, t: float, t_next: float, e: Tensor) -> Tensor:
    """DPM-Solver-1, eq. 3.7."""
    return _part(x, t, t_next, 1.0, e)


def _step_2(
    eps: Noise, x: Tensor, t: float, t_next: float, e: Tensor, r: float = 0.5, e_1: Tensor | None = None
) -> Tensor:
    """DPM-Solver-2, algorithm 4; e_1 is the noise at r of the way where it is known."""
    h = t_next - t
    if e_1 is None:
        e_1 = eps(_part(x, t, t_next, r, e), t + r * h)
    return _step_1(x, t, t_next, e) - (e_1 - e) * (_sigma(t_next) / (2 * r) * math.expm1(h))


def _step_3(eps: Noise, x: Tensor, t: float, t_next: float, e: Tensor, e_1: Tensor | None = None) -> Tensor:
    """DPM-Solver-3, algorithm 5, r_1 = 1/3 and r_2 = 2/3; e_1 is the noise at r_1 of the way where it is known."""
    h, r_1, r_2 = t_next - t, 1 / 3, 2 / 3
    if e_1 is None:
        e_1 = eps(_part(x, t, t_next, r_1, e), t + r_1 * h)
    u_2 = _part(x, t, t_next, r_2, e)
    u_2 = u_2 - (e_1 - e) * (_sigma(t + r_2 * h) * (r_2 / r_1) * (math.expm1(r_2 * h) / (r_2 * h) - 1))
    e_2 = eps(u_2, t + r_2 * h)
    return _step_1(x, t, t_next, e) - (e_2 - e) * (_sigma(t_next) / r_2 * (math.expm1(h) / h - 1))
