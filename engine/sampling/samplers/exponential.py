"""Exponential integrators of later papers, in lambda = -log sigma (half of the log signal to noise ratio)."""

from __future__ import annotations

import itertools
import math
from typing import Literal

import numpy as np
from torch import Tensor

from engine.sampling.denoiser import Callback, Denoiser, GuidedDenoiser, NoiseSource, Step, silent
from engine.sampling.samplers.dpmpp import log_time
from engine.sampling.samplers.euler import ancestral_step, slope
from engine.sampling.samplers.multistep import lagrange_basis


def _phi_1(z: float) -> float:
    return math.expm1(z) / z


def _phi_2(z: float) -> float:
    return (_phi_1(z) - 1) / z


def sample_res_multistep(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: list[float],
    *,
    callback: Callback = silent,
    noise: NoiseSource,
    eta: float = 0.0,
    s_noise: float = 1.0,
) -> Tensor:
    """Refined exponential solver, second-order multistep (https://arxiv.org/abs/2308.02157); eta adds noise."""
    old_denoised: Tensor | None = None
    old_down = 0.0
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        callback(Step(i, len(sigmas) - 1, sigma, x, denoised))
        down, up = ancestral_step(sigma, sigma_next, eta)
        if down == 0 or old_denoised is None:
            x = x + slope(x, sigma, denoised) * (down - sigma)
        else:
            h, b_1, b_2 = _res_weights(sigma, down, sigmas[i - 1], old_down)
            x = x * math.exp(-h) + (denoised * b_1 + old_denoised * b_2) * h
        if up:
            x = x + noise(sigma, sigma_next) * (s_noise * up)
        old_denoised, old_down = denoised, down
    return x


def sample_res_multistep_ancestral(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: list[float],
    *,
    callback: Callback = silent,
    noise: NoiseSource,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Tensor:
    """res_multistep with ancestral noise."""
    return sample_res_multistep(denoiser, x, sigmas, callback=callback, noise=noise, eta=eta, s_noise=s_noise)


def sample_res_multistep_cfg_pp(
    denoiser: GuidedDenoiser,
    x: Tensor,
    sigmas: list[float],
    *,
    callback: Callback = silent,
    noise: NoiseSource,
    eta: float = 0.0,
    s_noise: float = 1.0,
) -> Tensor:
    """res_multistep along the unconditional estimates, moved by the guidance (CFG++)."""
    old_uncond: Tensor | None = None
    old_down = 0.0
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised, uncond = denoiser.with_uncond(x, sigma)
        callback(Step(i, len(sigmas) - 1, sigma, x, denoised))
        down, up = ancestral_step(sigma, sigma_next, eta)
        if down == 0 or old_uncond is None:
            x = denoised + slope(x, sigma, uncond) * down
        else:
            h, b_1, b_2 = _res_weights(sigma, down, sigmas[i - 1], old_down)
            x = (x + denoised - uncond) * math.exp(-h) + (uncond * b_1 + old_uncond * b_2) * h
        if up:
            x = x + noise(sigma, sigma_next) * (s_noise * up)
        old_uncond, old_down = uncond, down
    return x


def sample_res_multistep_ancestral_cfg_pp(
    denoiser: GuidedDenoiser,
    x: Tensor,
    sigmas: list[float],
    *,
    callback: Callback = silent,
    noise: NoiseSource,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Tensor:
    """res_multistep_cfg_pp with ancestral noise."""
    return sample_res_multistep_cfg_pp(denoiser, x, sigmas, callback=callback, noise=noise, eta=eta, s_noise=s_noise)


def _res_weights(sigma: float, down: float, sigma_prev: float, old_down: float) -> tuple[float, float, float]:
    """(h, weight of the new estimate, weight of the old one)."""
    h = log_time(down) - log_time(sigma)
    c_2 = (log_time(sigma_prev) - log_time(old_down)) / h
    if c_2 == 0:
        return h, 0.0, 0.0
    return h, _phi_1(-h) - _phi_2(-h) / c_2, _phi_2(-h) / c_2


def sample_seeds_2(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: list[float],
    *,
    callback: Callback = silent,
    noise: NoiseSource,
    eta: float = 1.0,
    s_noise: float = 1.0,
    r: float = 0.5,
    solver_type: Literal["phi_1", "phi_2"] = "phi_1",
) -> Tensor:
    """SEEDS-2 (https://arxiv.org/abs/2305.14267), algorithm 2: a stochastic exponential solver of two stages."""
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        callback(Step(i, len(sigmas) - 1, sigma, x, denoised))
        if sigma_next == 0:
            return denoised
        h = log_time(sigma_next) - log_time(sigma)
        h_eta = h * (eta + 1)
        sigma_1 = sigma * math.exp(-r * h)
        path = _PartialNoise(h * eta, [r, 1.0])

        x_2 = x * math.exp(-r * h_eta) - denoised * math.expm1(-r * h_eta)
        if eta and s_noise:
            path.draw(noise(sigma, sigma_1))
            path.draw(noise(sigma_1, sigma_next))
            x_2 = x_2 + path.at(0) * (sigma_1 * s_noise)
        denoised_2 = denoiser(x_2, sigma_1)

        weight = 1 / (2 * r) if solver_type == "phi_1" else _phi_2(-h_eta) / _phi_1(-h_eta) / r
        mixed = denoised + (denoised_2 - denoised) * weight
        x = x * math.exp(-h_eta) - mixed * math.expm1(-h_eta)
        if eta and s_noise:
            x = x + path.at(1) * (sigma_next * s_noise)
    return x


def sample_seeds_3(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: list[float],
    *,
    callback: Callback = silent,
    noise: NoiseSource,
    eta: float = 1.0,
    s_noise: float = 1.0,
    r_1: float = 1 / 3,
    r_2: float = 2 / 3,
) -> Tensor:
    """SEEDS-3 (https://arxiv.org/abs/2305.14267), algorithm 3: a stochastic exponential solver of three stages."""
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        callback(Step(i, len(sigmas) - 1, sigma, x, denoised))
        if sigma_next == 0:
            return denoised
        h = log_time(sigma_next) - log_time(sigma)
        h_eta = h * (eta + 1)
        sigma_1, sigma_2 = sigma * math.exp(-r_1 * h), sigma * math.exp(-r_2 * h)
        c_1, c_2, c_3 = math.expm1(-r_1 * h_eta), math.expm1(-r_2 * h_eta), math.expm1(-h_eta)
        path = _PartialNoise(h * eta, [r_1, r_2, 1.0])
        noisy = bool(eta and s_noise)
        if noisy:
            for start, end in ((sigma, sigma_1), (sigma_1, sigma_2), (sigma_2, sigma_next)):
                path.draw(noise(start, end))

        x_2 = x * math.exp(-r_1 * h_eta) - denoised * c_1
        x_2 = x_2 + path.at(0) * (sigma_1 * s_noise) if noisy else x_2
        denoised_2 = denoiser(x_2, sigma_1)

        a_2 = r_2 / r_1 * (c_2 / (r_2 * h_eta) + 1)
        x_3 = x * math.exp(-r_2 * h_eta) - denoised * c_2 + (denoised_2 - denoised) * a_2
        x_3 = x_3 + path.at(1) * (sigma_2 * s_noise) if noisy else x_3
        denoised_3 = denoiser(x_3, sigma_2)

        b_3 = (c_3 / h_eta + 1) / r_2
        x = x * math.exp(-h_eta) - denoised * c_3 + (denoised_3 - denoised) * b_3
        x = x + path.at(2) * (sigma_next * s_noise) if noisy else x
    return x


class _PartialNoise:
    """The noise of a stage: what was drawn up to there, weighted so that its variance is 1 - exp(-2 r h eta)."""

    def __init__(self, h_eta: float, stages: list[float]) -> None:
        ends = [math.expm1(-2 * r * h_eta) for r in [0.0, *stages]]
        self.weights = [math.sqrt(a - b) for a, b in itertools.pairwise(ends)]
        self.drawn: list[Tensor] = []

    def draw(self, noise: Tensor) -> None:
        self.drawn.append(noise)

    def at(self, stage: int) -> Tensor:
        """The newest noise has the largest weight, the first of the list."""
        total = self.drawn[0] * self.weights[stage]
        for i in range(1, stage + 1):
            total = total + self.drawn[i] * self.weights[stage - i]
        return total


def sample_er_sde(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: list[float],
    *,
    callback: Callback = silent,
    noise: NoiseSource,
    s_noise: float = 1.0,
    max_stage: int = 3,
    power: float | None = None,
    points: int = 200,
) -> Tensor:
    """Extended reverse-time SDE, VE ER-SDE-Solver-3 (https://arxiv.org/abs/2309.06169) with its fifth noise scale, or
    with sigma to a power: 2 is the reverse-time SDE, 1 (and no s_noise) the ODE."""

    def scale(s: float) -> float:
        return s * (math.exp(s**0.3) + 10) if power is None else s**power

    old_denoised = old_d = x
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        callback(Step(i, len(sigmas) - 1, sigma, x, denoised))
        if sigma_next == 0:
            return denoised
        stage = min(max_stage, i + 1)
        r = scale(sigma_next) / scale(sigma)
        x = x * r + denoised * (1 - r)
        dt = sigma_next - sigma
        width = -dt / points
        positions = [sigma_next + k * width for k in range(points)]
        if stage >= 2:
            integral = sum(1 / scale(p) for p in positions) * width
            d = (denoised - old_denoised) / (sigma - sigmas[i - 1])
            x = x + d * (dt + integral * scale(sigma_next))
            if stage >= 3:
                integral = sum((p - sigma) / scale(p) for p in positions) * width
                u = (d - old_d) / ((sigma - sigmas[i - 2]) / 2)
                x = x + u * (dt**2 / 2 + integral * scale(sigma_next))
            old_d = d
        if s_noise:
            x = x + noise(sigma, sigma_next) * (s_noise * math.sqrt(max(0.0, sigma_next**2 - sigma**2 * r**2)))
        old_denoised = denoised
    return x


def sample_sa_solver(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: list[float],
    *,
    callback: Callback = silent,
    noise: NoiseSource,
    tau: float = 1.0,
    sde_start_sigma: float = math.inf,
    sde_end_sigma: float = 0.0,
    s_noise: float = 1.0,
    predictor_order: int = 3,
    corrector_order: int = 4,
    use_pece: bool = False,
    simple_order_2: bool = False,
) -> Tensor:
    """SA-Solver (https://arxiv.org/abs/2309.05019), algorithm 1: stochastic Adams predictor and corrector.

    tau scales the noise between sde_start_sigma and sde_end_sigma, there is none elsewhere. use_pece evaluates again
    after each correction. simple_order_2 takes the paper's simpler weights (appendix D) for steps of order 2.
    """
    times = [log_time(sigma) if sigma > 0 else math.inf for sigma in sigmas]
    last = len(sigmas) - 1
    to_zero = sigmas[-1] == 0
    known: list[Tensor] = []  # estimates, the newest last
    predicted, h, tau_t = x, 0.0, 0.0
    drawn: Tensor | None = None
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised = denoiser(predicted, sigma)
        callback(Step(i, last, sigma, predicted, denoised))
        known = [*known, denoised][-max(predictor_order, corrector_order) :]
        order_p, order_c = min(predictor_order, len(known)), min(corrector_order, len(known))
        if i == 0 or (sigma_next == 0 and not use_pece):
            order_c = 0
        if to_zero:  # lower orders near the end are steadier
            order_p, order_c = min(order_p, last - 1 - i), min(order_c, last - i)

        if order_c == 0:
            x = predicted
        else:
            nodes = times[i - order_c + 1 : i + 1]
            weigh = _simple_corrector if simple_order_2 and order_c == 2 else _adams_weights
            weights = weigh(nodes, times[i - 1], times[i], tau_t)
            x = x * (sigma / sigmas[i - 1] * math.exp(-(tau_t**2) * h)) + _weighted(known[-order_c:], weights)
            if drawn is not None:
                x = x + drawn
            if use_pece:
                denoised = denoiser(x, sigma)
                known[-1] = denoised

        if sigma_next == 0:
            return denoised
        tau_t = tau if sde_end_sigma <= sigma_next <= sde_start_sigma else 0.0
        nodes = times[i - order_p + 1 : i + 1]
        weigh = _simple_predictor if simple_order_2 and order_p == 2 else _adams_weights
        weights = weigh(nodes, times[i], times[i + 1], tau_t)
        h = times[i + 1] - times[i]
        predicted = x * (sigma_next / sigma * math.exp(-(tau_t**2) * h)) + _weighted(known[-order_p:], weights)
        drawn = None
        if tau_t and s_noise:
            drawn = noise(sigma, sigma_next) * (sigma_next * math.sqrt(-math.expm1(-2 * tau_t**2 * h)) * s_noise)
            predicted = predicted + drawn
    return predicted


def sample_sa_solver_pece(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: list[float],
    *,
    callback: Callback = silent,
    noise: NoiseSource,
    tau: float = 1.0,
    sde_start_sigma: float = math.inf,
    sde_end_sigma: float = 0.0,
    s_noise: float = 1.0,
    predictor_order: int = 3,
    corrector_order: int = 4,
) -> Tensor:
    """SA-Solver that predicts, evaluates, corrects and evaluates again: two evaluations a step."""
    return sample_sa_solver(
        denoiser,
        x,
        sigmas,
        callback=callback,
        noise=noise,
        tau=tau,
        sde_start_sigma=sde_start_sigma,
        sde_end_sigma=sde_end_sigma,
        s_noise=s_noise,
        predictor_order=predictor_order,
        corrector_order=corrector_order,
        use_pece=True,
    )


def _adams_weights(nodes: list[float], start: float, end: float, tau: float) -> list[float]:
    """Weights of the estimates at `nodes`: (1 + tau^2) times the integral of exp(-(1 + tau^2) (end - t)) L_j(t)."""
    rate = (1 + tau**2) * (end - start)
    # On u = (t - start) / (end - start) by parts: m_0 = (1 - exp(-rate)) / rate, m_p = (1 - p m_(p-1)) / rate.
    moments = [-math.expm1(-rate) / rate]
    for p in range(1, len(nodes)):
        moments.append((1 - p * moments[-1]) / rate)
    scaled = [(node - start) / (end - start) for node in nodes]
    return [rate * float(np.dot(basis.coef, moments[: len(basis.coef)])) for basis in lagrange_basis(scaled)]


def _simple_predictor(nodes: list[float], start: float, end: float, tau: float) -> list[float]:
    """Appendix D: the older estimate's weight from the first terms of the exponential, the newer one gets the rest."""
    rate, h = 1 + tau**2, end - start
    older = 0.5 * rate * h**2 / (nodes[-2] - start)
    return [older, -math.expm1(-rate * h) - older]


def _simple_corrector(nodes: list[float], start: float, end: float, tau: float) -> list[float]:
    rate, h = 1 + tau**2, end - start
    newer = 0.5 * rate * h
    return [-math.expm1(-rate * h) - newer, newer]


def _weighted(tensors: list[Tensor], weights: list[float]) -> Tensor:
    total = tensors[0] * weights[0]
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        total = total + tensor * weight
    return total
