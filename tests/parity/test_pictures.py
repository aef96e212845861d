"""Recorded cases between pictures and latents on SD 1.5: inpainting, scaled latents, batches."""

from __future__ import annotations

import pytest

from tests.parity.harness import Harness

CASES = (
    "inpaint_noise_mask", "inpaint_vaeencode", "latent_upscale_by_nearest-exact", "latent_upscale_by_bilinear",
    "latent_upscale_by_area", "latent_upscale_by_bicubic", "latent_from_batch", "repeat_latent_batch_img",
)  # fmt: skip

pytestmark = [pytest.mark.parity, pytest.mark.slow]


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, harness: Harness) -> None:
    harness.check(name)


def test_all_8_cases_ran(harness: Harness) -> None:
    assert len(CASES) == 8
    assert harness.ran == set(CASES)
