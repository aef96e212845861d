"""Noise: which seed gives which numbers."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from engine.sampling.noise import brownian_noise, initial_noise, step_noise

LATENT = torch.zeros(3, 4, 2, 2)


def test_the_first_noise_is_one_draw_of_the_whole_batch() -> None:
    expected = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(7))
    assert torch.equal(initial_noise(LATENT, 7), expected)


def test_a_picture_of_a_batch_gets_the_noise_it_has_there() -> None:
    one = torch.zeros(2, 4, 2, 2)
    generator = torch.Generator().manual_seed(7)
    drawn = [torch.randn(1, 4, 2, 2, generator=generator) for _ in range(4)]
    assert torch.equal(initial_noise(one, 7, batch_index=[3, 1]), torch.cat([drawn[3], drawn[1]]))


def test_seeds_of_64_bits_are_taken() -> None:
    assert not torch.equal(initial_noise(LATENT, 2**64 - 1), initial_noise(LATENT, 2**63))


def test_noise_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    initial_noise(LATENT, 7)
    step_noise(LATENT, 7)(2.0, 1.0)
    brownian_noise(LATENT, [2.0, 1.0, 0.0], 7)(2.0, 1.0)
    assert torch.equal(torch.get_rng_state(), before)


def test_step_noise_starts_at_the_seed_and_goes_on() -> None:
    source = step_noise(LATENT, 7)
    generator = torch.Generator().manual_seed(7)
    assert torch.equal(source(2.0, 1.0), torch.randn(3, 4, 2, 2, generator=generator))
    assert torch.equal(source(1.0, 0.5), torch.randn(3, 4, 2, 2, generator=generator))


def test_brownian_noise_has_unit_variance_and_adds_up() -> None:
    x = torch.zeros(1, 4, 32, 32)
    sigmas = [10.0, 4.0, 1.0, 0.0]
    source = brownian_noise(x, sigmas, 7)
    first, second, both = source(10.0, 4.0), source(4.0, 1.0), source(10.0, 1.0)
    assert float(first.std()) == pytest.approx(1.0, abs=0.05)
    assert float(second.std()) == pytest.approx(1.0, abs=0.05)
    assert torch.allclose(first * math.sqrt(6) + second * math.sqrt(3), both * math.sqrt(9), atol=1e-4)


def test_a_brownian_path_is_the_seeds_and_not_the_steps() -> None:
    x = torch.zeros(1, 4, 4, 4)
    a = brownian_noise(x, [10.0, 4.0, 1.0, 0.0], 7)
    b = brownian_noise(x, [10.0, 7.0, 2.0, 1.0, 0.0], 7)
    b(10.0, 7.0)
    assert torch.allclose(a(10.0, 4.0), b(10.0, 4.0), atol=1e-5)
    assert not torch.allclose(a(10.0, 4.0), brownian_noise(x, [10.0, 4.0, 1.0, 0.0], 8)(10.0, 4.0))


def test_a_rounding_error_outside_the_tree_warns_nobody() -> None:
    x = torch.zeros(1, 1, 2, 2)
    sigmas = [14.614640235900879, 0.029167160391807556, 0.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        brownian_noise(x, sigmas, 1)(sigmas[0], sigmas[1])
