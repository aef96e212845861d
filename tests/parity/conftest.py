"""Fixtures of the parity tests. Set EASEL_PARITY_MODELS to a folder that keeps the weights between runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from engine.workspace import Workspace
from tests.parity.harness import HERE, Harness
from tests.parity.make_weights import make_all

KINDS = ("checkpoints", "loras", "diffusion_models", "text_encoders", "vae")


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    kept = os.environ.get("EASEL_PARITY_MODELS")
    models = make_all(Path(kept) if kept else tmp_path_factory.mktemp("models"))
    space = Workspace(tmp_path_factory.mktemp("workspace"), extra={kind: (models / kind,) for kind in KINDS})
    space.create()
    shutil.copytree(HERE / "inputs", space.input, dirs_exist_ok=True)
    shutil.copytree(models / "embeddings", space.models / "embeddings", dirs_exist_ok=True)
    return space


@pytest.fixture(scope="module")
def harness(workspace: Workspace) -> Iterator[Harness]:
    threads = torch.get_num_threads()
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    made = Harness(workspace)
    yield made
    made.close()
    torch.set_num_threads(threads)
