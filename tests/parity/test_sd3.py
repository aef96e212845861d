"""The recorded case of SD3, with both its CLIP encoders and without T5, at real width: latents within 2e-5, pictures
within 2 levels."""

from __future__ import annotations

import psutil
import pytest

from engine.workspace import Workspace
from tests.parity.harness import Harness
from tests.parity.make_parts import PARTS, make_part
from tests.parity.make_weights import digest

FILES = (
    "diffusion_models/ref_sd3_d6.safetensors", "text_encoders/ref_clip_l.safetensors",
    "text_encoders/ref_clip_g.safetensors", "vae/ref_ae16.safetensors",
)  # fmt: skip
CASES = ("sd3_basic",)  # without T5
NEED = 22 << 30  # bytes of memory

pytestmark = [
    pytest.mark.parity,
    pytest.mark.slow,
    pytest.mark.skipif(psutil.virtual_memory().total < NEED, reason="real sizes run on machines of 22 GiB and more"),
]


@pytest.fixture(scope="module", autouse=True)
def weights(workspace: Workspace) -> None:
    (checkpoints,) = workspace.extra["checkpoints"]
    for name in FILES:
        assert digest(make_part(checkpoints.parent, name)) == PARTS[name][1], name


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, harness: Harness) -> None:
    harness.check(name)


def test_the_case_ran(harness: Harness) -> None:
    assert harness.ran == set(CASES) and len(CASES) == 1
