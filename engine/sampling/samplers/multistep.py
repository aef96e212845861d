"""Linear multistep methods: Adams-Bashforth steps over the slopes of earlier steps, one evaluation a step."""

from __future__ import annotations

import itertools
from math import prod

from numpy.polynomial import Polynomial
from torch import Tensor

from engine.sampling.denoiser import Callback, Denoiser, NoiseSource, Step, silent
from engine.sampling.samplers.euler import slope


def lagrange_integrals(nodes: list[float], start: float, end: float) -> list[float]:
    """Integrals over start..end of the Lagrange basis polynomials of `nodes`: the weights of their slopes."""
    # Shifted and scaled to the interval, so that powers of close-by nodes keep their digits.
    scale = end - start
    u = [(node - start) / scale for node in nodes]
    weights = []
    for j, u_j in enumerate(u):
        others = [u_k for k, u_k in enumerate(u) if k != j]
        basis = prod((Polynomial([-u_k, 1.0]) / (u_j - u_k) for u_k in others), start=Polynomial([1.0]))
        weights.append(float(basis.integ()(1.0)) * scale)
    return weights


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
