"""Recorded ControlNets, tiles and merges on SD 1.5: latents within 2e-5, pictures within 2 levels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from engine.workspace import Workspace
from tests.parity.harness import Harness
from tests.parity.make_weights import CONTROLNET, CONTROLNET_DIGEST, digest, make_checkpoint

CASES = ("controlnet_adv", "controlnet_apply_old", "vae_tiled", "merge_simple_lora")

pytestmark = [pytest.mark.parity, pytest.mark.slow]


@pytest.fixture(scope="module")
def harness(workspace: Workspace) -> Iterator[Harness]:
    models = workspace.extra["checkpoints"][0].parent
    if not (models / CONTROLNET).is_file():
        make_checkpoint(models / CONTROLNET, "controlnet15")
    assert digest(models / CONTROLNET) == CONTROLNET_DIGEST
    threads = torch.get_num_threads()
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    yield Harness(replace(workspace, extra={**workspace.extra, "controlnet": (models / "controlnet",)}))
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, harness: Harness) -> None:
    harness.check(name)


def test_all_4_cases_ran(harness: Harness) -> None:
    assert harness.ran == set(CASES) and len(CASES) == 4
