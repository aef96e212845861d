"""The recorded case of SDXL at its real size: 7 GB of weights are made, 14 GB of memory are taken."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from engine.workspace import Workspace
from tests.parity.harness import Harness
from tests.parity.make_weights import SDXL, make_checkpoint

NEED = 23 << 30  # bytes of memory; a machine of 24 GiB has a little less

pytestmark = [
    pytest.mark.parity,
    pytest.mark.slow,
    pytest.mark.skipif(psutil.virtual_memory().total < NEED, reason="SDXL in float32 takes a machine of 24 GiB"),
]


@pytest.fixture(scope="module", autouse=True)
def weights(workspace: Workspace) -> Path:
    (root,) = workspace.extra["checkpoints"]
    path = root.parent / SDXL
    if not path.is_file():
        make_checkpoint(path, "sdxl")
    return path


def test_sdxl_with_sizes_of_its_own(harness: Harness) -> None:
    harness.check("sdxl_basic")
