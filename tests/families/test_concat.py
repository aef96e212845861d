"""UNets with more channels than their latents: inpainting and InstructPix2Pix."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.families.base import Model, TextBatch
from engine.families.discover import detect, family_of
from engine.models.device import open_device
from engine.models.manager import ModelManager
from engine.weights.header import read_header
from tests.families.tiny_unets import SD2, SDXL, Tiny, make_tiny, tiny_unet_modules

GREY = torch.tensor([0.8223, -0.6876, 0.6364, 0.1380])


@pytest.fixture
def manager() -> ModelManager:
    return ModelManager(open_device("cpu"))


def model_of(tmp_path: Path, manager: ModelManager, tiny: Tiny) -> Model:
    path = make_tiny(tmp_path / "a.safetensors", tiny)
    return family_of(read_header(path)).load_checkpoint(manager, path).model


def concat(model: Model, options: dict[str, Any], latent: torch.Tensor) -> torch.Tensor:
    return model.family.extra_conditions(model, None, options, latent)["concat"]


@pytest.mark.parametrize("channels", [4, 8, 9])
@pytest.mark.parametrize("tiny", [SD2, SDXL])
def test_a_unet_with_more_channels_is_of_its_family(tmp_path: Path, tiny: Tiny, channels: int):
    path = make_tiny(tmp_path / "a.safetensors", replace(tiny, channels=channels))
    found = detect(read_header(path))
    assert found is not None and found.family == ("sd2" if tiny is SD2 else "sdxl")


def test_a_unet_of_another_number_of_channels_is_not(tmp_path: Path):
    """Five channels: SD 2's depth model, which wants a depth map."""
    assert detect(read_header(make_tiny(tmp_path / "a.safetensors", replace(SD2, channels=5)))) is None


def test_inpainting_is_shown_the_mask_and_the_picture(tmp_path: Path, manager: ModelManager):
    model = model_of(tmp_path, manager, replace(SD2, channels=9))
    latent, image, mask = torch.randn(2, 4, 8, 8), torch.randn(1, 4, 8, 8), torch.zeros(1, 64, 64)
    mask[:, :, 32:] = 1  # the right half
    shown = concat(model, {"concat_latent_image": image, "concat_mask": mask}, latent)
    assert shown.shape == (2, 5, 8, 8)
    assert torch.equal(shown[:, 0, :, :3], torch.zeros(2, 8, 3)) and torch.equal(
        shown[:, 0, :, 5:], torch.ones(2, 8, 3)
    )
    torch.testing.assert_close(shown[:, 1:], image.expand(2, -1, -1, -1) * 0.18215)


def test_without_conditioning_inpainting_sees_the_runs_own_mask_and_picture(tmp_path: Path, manager: ModelManager):
    model = model_of(tmp_path, manager, replace(SD2, channels=9))
    latent, mask = torch.randn(1, 4, 8, 8), (torch.rand(1, 1, 8, 8) > 0.5).float()
    shown = concat(model, {"noise_mask": mask}, latent)
    assert torch.equal(shown, torch.cat([mask, latent], dim=1))


def test_without_any_mask_inpainting_sees_grey_that_is_all_mask(tmp_path: Path, manager: ModelManager):
    model = model_of(tmp_path, manager, replace(SD2, channels=9))
    shown = concat(model, {}, torch.randn(1, 4, 8, 8))
    assert torch.equal(shown[0, 0], torch.ones(8, 8)) and torch.equal(shown[0, 1:, 3, 5], GREY)


def test_instruct_pix2pix_is_shown_the_picture_in_the_vaes_scale(tmp_path: Path, manager: ModelManager):
    model = model_of(tmp_path, manager, replace(SD2, channels=8))
    latent, image = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    assert torch.equal(concat(model, {"concat_latent_image": image}, latent), image)
    assert torch.equal(concat(model, {}, latent), torch.zeros(1, 4, 8, 8))


def test_an_ordinary_unet_is_shown_nothing_more(tmp_path: Path, manager: ModelManager):
    model = model_of(tmp_path, manager, SD2)
    options = {"concat_latent_image": torch.randn(1, 4, 8, 8), "concat_mask": torch.ones(1, 64, 64)}
    assert model.family.extra_conditions(model, None, options, torch.randn(1, 4, 8, 8)) == {}


def test_the_channels_go_into_the_unet_behind_the_latents(tmp_path: Path, manager: ModelManager):
    tiny = replace(SD2, channels=9)
    model, x, text = model_of(tmp_path, manager, tiny), torch.randn(1, 4, 8, 8), torch.randn(1, 77, 32)
    more, t = concat(model, {}, x), torch.tensor([300.0])
    with manager.lease(model.ref) as leased, torch.no_grad():
        got = model.family.predict(leased[model.ref], x, t, TextBatch(text, extra={"concat": more}))
        wanted = tiny_unet_modules(tiny).unet(torch.cat([x, more], dim=1), t, text).sample
    torch.testing.assert_close(got, wanted)
