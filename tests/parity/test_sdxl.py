"""The recorded case of SDXL at its real size: 7 GB of weights are made, 14 GB of memory are taken."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from engine.workspace import Workspace
from tests.parity.harness import Harness
from tests.parity.make_weights import SDXL, make_checkpoint

CASES = ("sdxl_basic",)  # with sizes of its own
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


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, harness: Harness) -> None:
    harness.check(name)


def test_the_case_ran(harness: Harness) -> None:
    assert harness.ran == set(CASES) and len(CASES) == 1
