"""APG, FreSca and cfg by frame on small latents, against what their formulas say of single pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from engine.families.parts.patch import Guidance, Patch
from engine.nodes import guidance_direction as nodes
from engine.sampling.patches.directions import adaptive_projected_guidance, frequency_scaling, scaled_bands
from engine.sampling.patches.frames import linear_cfg, triangle_cfg
from tests.sampling.test_run import Context, model, run

COND, UNCOND = (torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
RUN = (14.0, 2.0, 0.0)


@dataclass
class Seen:
    cond: Tensor = COND
    uncond: Tensor = UNCOND
    cfg: float = 7.0
    has_uncond: bool = True
    sigmas: Any = RUN


def guided(patch: Patch, seen: Seen | None = None) -> Tensor:
    """As a rule has it: uncond + cfg * (cond - uncond) of what the patch makes of the two."""
    seen = seen or Seen()
    assert patch.pre is not None
    cond, uncond = patch.pre(cast(Guidance, seen))
    return uncond + (cond - uncond) * seen.cfg


PLAIN = UNCOND + (COND - UNCOND) * 7.0


def test_apg_that_keeps_everything_is_plain_guidance() -> None:
    assert torch.allclose(guided(adaptive_projected_guidance(1.0, 0.0, 0.0)), PLAIN, atol=1e-4)


def test_apg_takes_the_part_along_the_estimate_away_picture_by_picture() -> None:
    out = guided(adaptive_projected_guidance(0.0, 0.0, 0.0))
    for i in range(2):
        cond, direction = COND[i].flatten(), (COND - UNCOND)[i].flatten()
        expected = cond + 6 * (direction - (direction @ cond) / (cond @ cond) * cond)
        assert torch.allclose(out[i].flatten(), expected, atol=1e-4)
        assert float((out[i].flatten() - cond) @ cond) == pytest.approx(0.0, abs=0.05)


def test_apg_shortens_long_directions_alone() -> None:
    near = UNCOND.clone()
    near[1] = COND[1] - 0.01
    out = guided(adaptive_projected_guidance(1.0, 5.0, 0.0), Seen(uncond=near))
    assert float((out[0] - COND[0]).norm()) == pytest.approx(6 * 5.0, rel=1e-4)
    assert torch.allclose(out[1], COND[1] + 6 * 0.01, atol=1e-4)


def test_momentum_goes_from_step_to_step_and_not_into_another_run() -> None:
    patch = adaptive_projected_guidance(1.0, 0.0, -0.5)
    first, second = guided(patch), guided(patch)
    direction = COND - UNCOND
    assert torch.allclose(first, PLAIN, atol=1e-4)
    assert torch.allclose(second, COND + 6 * 0.5 * direction, atol=1e-4)
    assert torch.equal(guided(patch, Seen(sigmas=[14.0, 2.0, 0.0])), first)


def test_without_a_negative_estimate_the_positive_one_stays() -> None:
    for patch in (adaptive_projected_guidance(0.0, 1.0, 0.5), frequency_scaling(0.0, 2.0, 2)):
        assert patch.pre is not None
        given = cast(Guidance, Seen(uncond=torch.zeros_like(COND), cfg=1.0, has_uncond=False))
        assert patch.pre(given)[0] is COND
    zero = replace(Seen(), cfg=0.0)
    assert torch.equal(guided(adaptive_projected_guidance(0.0, 1.0, 0.5), zero), UNCOND)


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 4)])
@pytest.mark.parametrize("cutoff", [1, 2, 3, 100])
def test_bands_are_the_square_around_the_middle_of_a_shifted_spectrum(size: tuple[int, int], cutoff: int) -> None:
    tensor = torch.randn(2, 3, *size)
    spectrum = torch.fft.fftshift(torch.fft.fft2(tensor), dim=(-2, -1))
    mask = torch.full(size, 3.0)
    rows, columns = (slice(n // 2 - min(cutoff, n // 2), n // 2 + min(cutoff, n // 2)) for n in size)
    mask[rows, columns] = 0.5
    expected = torch.fft.ifft2(torch.fft.ifftshift(spectrum * mask, dim=(-2, -1))).real
    assert torch.allclose(scaled_bands(tensor, 0.5, 3.0, cutoff), expected, atol=1e-5)


def test_fresca_scales_the_direction_alone() -> None:
    assert torch.allclose(guided(frequency_scaling(1.0, 1.0, 3)), PLAIN, atol=1e-4)
    out = guided(frequency_scaling(0.0, 0.0, 3))
    assert torch.allclose(out, UNCOND, atol=1e-5)
    flat = Seen(cond=UNCOND + 1.0)
    assert torch.allclose(guided(frequency_scaling(2.0, 0.0, 1), flat), UNCOND + 14.0, atol=1e-4)


def test_each_frame_has_its_cfg() -> None:
    cond, uncond = torch.ones(5, 1, 1, 1), torch.zeros(5, 1, 1, 1)
    seen = cast(Guidance, Seen(cond=cond, uncond=uncond, cfg=3.0))
    linear, triangle = linear_cfg(1.0).cfg, triangle_cfg(1.0).cfg
    assert linear is not None and triangle is not None
    assert linear(seen).flatten().tolist() == [1.0, 1.5, 2.0, 2.5, 3.0]
    assert triangle(seen).flatten().tolist() == [1.0, 2.0, 3.0, 2.0, 1.0]
    alone = cast(Guidance, Seen(cond=cond[:1], uncond=uncond[:1], cfg=3.0))
    assert linear(alone).flatten().tolist() == [1.0]


@pytest.mark.parametrize(
    ("node", "values"),
    [
        (nodes.apg, (0.0, 2.0, -0.5)),
        (nodes.fresca, (0.5, 2.0, 2)),
        (nodes.video_linear_cfg_guidance, (1.0,)),
        (nodes.video_triangle_cfg_guidance, (1.0,)),
    ],
)
def test_nodes_act_in_a_run_and_leave_nothing_behind(node: Any, values: tuple[float, ...]) -> None:
    ctx = Context()
    plain = run(ctx)
    (changed,) = node(None, model(ctx), *values)
    out = run(ctx, changed)
    assert out.isfinite().all() and not torch.allclose(out, plain, atol=1e-3)
    assert torch.equal(run(ctx, changed), out) and torch.equal(run(ctx), plain)
