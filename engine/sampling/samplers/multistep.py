"""Linear multistep methods: Adams-Bashforth steps over the slopes of earlier steps, one evaluation a step."""

from __future__ import annotations

import itertools
from math import log1p, prod, sqrt

import numpy as np
from numpy.polynomial import Polynomial
from torch import Tensor

from engine.sampling.denoiser import Callback, Denoiser, GuidedDenoiser, NoiseSource, Step, silent
from engine.sampling.samplers.euler import slope


def lagrange_basis(nodes: list[float]) -> list[Polynomial]:
    """The polynomials that are 1 at one node and 0 at the others."""
    return [
        prod((Polynomial([-n, 1.0]) / (node - n) for k, n in enumerate(nodes) if k != j), start=Polynomial([1.0]))
        for j, node in enumerate(nodes)
    ]


def lagrange_integrals(nodes: list[float], start: float, end: float) -> list[float]:
    """Integrals over start..end of the Lagrange basis polynomials of `nodes`: the weights of their slopes."""
    # Shifted and scaled to the interval, so that powers of close-by nodes keep their digits.
    scale = end - start
    return [float(basis.integ()(1.0)) * scale for basis in lagrange_basis([(node - start) / scale for node in nodes])]


def sample_lms(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: list[float],
    *,
    callback: Callback = silent,
    noise: NoiseSource,
    order: int = 4,
) -> Tensor:
    """Linear multistep on the steps' own sigmas, of order 1 at the first step, rising (k-diffusion's LMS)."""
    slopes: list[Tensor] = []  # the newest first, as are the nodes below
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        callback(Step(i, len(sigmas) - 1, sigma, x, denoised))
        slopes = [slope(x, sigma, denoised), *slopes][:order]
        if sigma_next == 0:
            return denoised
        nodes = sigmas[i::-1][: len(slopes)]
        for weight, d in zip(lagrange_integrals(nodes, sigma, sigma_next), slopes, strict=True):
            x = x + d * weight
    return x


def sample_ipndm(
    denoiser: Denoiser, x: Tensor, sigmas: list[float], *, callback: Callback = silent, noise: NoiseSource
) -> Tensor:
    """Improved PNDM (https://arxiv.org/abs/2204.13902): fourth-order Adams-Bashforth as if steps were of one size."""
    weights = ([1.0], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24])
    slopes: list[Tensor] = []
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        callback(Step(i, len(sigmas) - 1, sigma, x, denoised))
        if sigma_next == 0:
            return denoised
        slopes = [slope(x, sigma, denoised), *slopes][:4]
        for weight, d in zip(weights[len(slopes) - 1], slopes, strict=True):
            x = x + d * (weight * (sigma_next - sigma))
    return x


def sample_ipndm_v(
    denoiser: Denoiser, x: Tensor, sigmas: list[float], *, callback: Callback = silent, noise: NoiseSource
) -> Tensor:
    """Improved PNDM (https://arxiv.org/abs/2204.13902) for steps of varying size, with the field's weights."""
    slopes: list[Tensor] = []
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        callback(Step(i, len(sigmas) - 1, sigma, x, denoised))
        if sigma_next == 0:
            return denoised
        slopes = [slope(x, sigma, denoised), *slopes][:4]
        h = sigma_next - sigma
        earlier = [a - b for a, b in itertools.pairwise(sigmas[i::-1][: len(slopes)])]
        for weight, d in zip(_ipndm_v_weights(h, earlier), slopes, strict=True):
            x = x + d * (weight * h)
    return x


def _ipndm_v_weights(h: float, earlier: list[float]) -> list[float]:
    """Weights of the slopes, the newest first, for a step h after steps `earlier` (the newest first).

    They are diff-sampler's, by which pictures of the field were made. Its third and fourth order differ from the
    variable-step Adams-Bashforth weights (a bracket in `t`, the last weight's ratio), which `sample_lms` has.
    """
    if not earlier:
        return [1.0]
    h_1 = earlier[0]
    first, second = 1 + h / h_1 / 2, -h / h_1 / 2
    if len(earlier) == 1:
        return [first, second]
    h_2 = earlier[1]
    t = (1 - h / (3 * (h + h_1)) * (h * (h + h_1)) / (h_1 * (h_1 + h_2))) / 2
    if len(earlier) == 2:
        return [first + t, second - (1 + h_1 / h_2) * t, t * h_1 / h_2]
    h_3 = earlier[2]
    u = (1 - h / (3 * (h + h_1))) / 2 + (1 - h / (2 * (h + h_1))) * h / (6 * (h + h_1 + h_2))
    u *= h * (h + h_1) * (h + h_1 + h_2) / (h_1 * (h_1 + h_2) * (h_1 + h_2 + h_3))
    ratio = h_1 * (h_1 + h_2) / (h_2 * (h_2 + h_3))
    return [
        first + t + u,
        second - (1 + h_1 / h_2) * t - (1 + h_1 / h_2 + ratio) * u,
        t * h_1 / h_2 + (h_1 / h_2 + ratio * (1 + h_2 / h_3)) * u,
        -u * ratio * h_1 / h_2,
    ]


def sample_deis(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: list[float],
    *,
    callback: Callback = silent,
    noise: NoiseSource,
    max_order: int = 3,
) -> Tensor:
    """DEIS (https://arxiv.org/abs/2204.13902), tAB: slopes as polynomials in the time of the VP diffusion."""
    slopes: list[Tensor] = []
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        callback(Step(i, len(sigmas) - 1, sigma, x, denoised))
        if sigma_next == 0:
            return denoised
        slopes = [slope(x, sigma, denoised), *slopes][:max_order]
        nodes = sigmas[i::-1][: len(slopes)]
        for weight, d in zip(_deis_weights(nodes, sigma, sigma_next), slopes, strict=True):
            x = x + d * weight
    return x


# The VP diffusion whose time DEIS takes: sigma 80 at time 1 and 0.002 at time 0.001 (EDM's range).
_VP_START, _VP_LOW, _VP_HIGH = 0.001, 0.002, 80.0
_VP_SLOPE = 2 * (log1p(_VP_LOW**2) / _VP_START - log1p(_VP_HIGH**2)) / (_VP_START - 1)
_VP_BETA_0 = log1p(_VP_HIGH**2) - _VP_SLOPE / 2
DEIS_POINTS = 10_000


def _vp_time(sigma: float) -> float:
    return (sqrt(_VP_BETA_0**2 + 2 * _VP_SLOPE * log1p(sigma**2)) - _VP_BETA_0) / _VP_SLOPE


def _deis_weights(nodes: list[float], start: float, end: float) -> list[float]:
    """Integrals over sigma of the Lagrange polynomials in VP time, by a sum of rectangles as the field has it."""
    if len(nodes) == 1:
        return [end - start]
    t_start, t_end = _vp_time(start), _vp_time(end)
    t = np.linspace(t_start, t_end, DEIS_POINTS)
    alpha = np.exp(-(t**2) * _VP_SLOPE / 2 - t * _VP_BETA_0)
    width = (_VP_SLOPE * t + _VP_BETA_0) / (2 * np.sqrt(alpha * (1 - alpha))) * ((t_end - t_start) / DEIS_POINTS)
    return [float(np.sum(width * basis(t))) for basis in lagrange_basis([_vp_time(node) for node in nodes])]


def sample_gradient_estimation(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: list[float],
    *,
    callback: Callback = silent,
    noise: NoiseSource,
    gamma: float = 2.0,
) -> Tensor:
    """Gradient estimation (https://arxiv.org/abs/2306.04848), algorithm 2: gamma d + (1 - gamma) d_old."""
    d_old: Tensor | None = None
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        callback(Step(i, len(sigmas) - 1, sigma, x, denoised))
        if sigma_next == 0:
            return denoised
        d = slope(x, sigma, denoised)
        mixed = d if d_old is None else d * gamma + d_old * (1 - gamma)
        x = x + mixed * (sigma_next - sigma)
        d_old = d
    return x


def sample_gradient_estimation_cfg_pp(
    denoiser: GuidedDenoiser,
    x: Tensor,
    sigmas: list[float],
    *,
    callback: Callback = silent,
    noise: NoiseSource,
    gamma: float = 2.0,
) -> Tensor:
    """Gradient estimation along the unconditional direction, from the guided estimate (CFG++)."""
    d_old: Tensor | None = None
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        denoised, uncond = denoiser.with_uncond(x, sigma)
        callback(Step(i, len(sigmas) - 1, sigma, x, denoised))
        if sigma_next == 0:
            return denoised
        d = slope(x, sigma, uncond)
        x = denoised + d * sigma_next
        if d_old is not None:
            x = x + (d - d_old) * ((gamma - 1) * (sigma_next - sigma))
        d_old = d
    return x
