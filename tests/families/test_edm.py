"""Playground 2.5 and CosXL: SDXL trained in continuous time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.families.discover import detect, family_of
from engine.families.parts.edm import ContinuousTime
from engine.models.device import open_device
from engine.models.manager import ModelManager
from engine.sampling.model import schedule_of
from engine.weights.header import read_header
from tests.families.tiny_unets import SDXL, make_tiny

PLAYGROUND = {"edm_mean": torch.tensor([-1.6574, 1.886, -1.383, 2.5155]), "edm_std": torch.ones(4)}
COSXL = {"edm_vpred.sigma_max": torch.tensor(100.0), "edm_vpred.sigma_min": torch.tensor(0.004)}


def marked(path: Path, marks: dict[str, Tensor], **changes: Any) -> Path:
    make_tiny(path, replace(SDXL, **changes))
    save_file({**load_file(path), **marks}, path, dict(read_header(path).metadata))
    return path


@pytest.fixture
def manager() -> ModelManager:
    return ModelManager(open_device("cpu"))


@pytest.mark.parametrize(
    ("marks", "prediction", "ends", "scale"),
    [(PLAYGROUND, "edm", (0.002, 80.0), 0.5), (COSXL, "v", (0.004, 100.0), 0.13025)],
)
def test_marks_say_how_it_was_trained(
    tmp_path: Path, manager: ModelManager, marks: dict[str, Tensor], prediction: str, ends: tuple[float, float], scale
):
    path = marked(tmp_path / "a.safetensors", marks)
    found = detect(read_header(path))
    model = family_of(read_header(path)).load_checkpoint(manager, path).model
    assert found is not None and found.family == "sdxl" and found.prediction == model.prediction == prediction
    schedule = schedule_of(model)
    assert (schedule.sigma_min, schedule.sigma_max) == pytest.approx(ends)
    assert schedule.timestep(1.0) == 0.0 and model.latent.scale == scale
    with pytest.raises(ContinuousTime, match="continuous time"):
        model.family.alphas_cumprod(model)


def test_latents_of_playground_are_normalised_by_channel(tmp_path: Path, manager: ModelManager):
    path = marked(tmp_path / "a.safetensors", PLAYGROUND)
    latent = family_of(read_header(path)).load_checkpoint(manager, path).model.latent
    given = torch.tensor([-1.6574 + 8.4927, 1.886, -1.383, 2.5155]).view(1, 4, 1, 1)
    torch.testing.assert_close(latent.scaled(given).flatten(), torch.tensor([0.5, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(latent.unscaled(latent.scaled(given)), given)


def test_cosxl_that_edits_sees_the_picture_in_the_denoisers_scale(tmp_path: Path, manager: ModelManager):
    image, latent = torch.randn(1, 4, 8, 8), torch.zeros(1, 4, 8, 8)
    for marks, scale in ((COSXL, 0.13025), ({}, 1.0)):
        path = marked(tmp_path / "a.safetensors", marks, channels=8)
        model = family_of(read_header(path)).load_checkpoint(manager, path).model
        seen = model.family.extra_conditions(model, None, {"concat_latent_image": image}, latent)["concat"]
        torch.testing.assert_close(seen, image * scale)
