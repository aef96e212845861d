"""Upscale models of real architectures, tiny and random, without torchvision."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import NotFound
from engine.models.device import FakeDevice
from engine.models.manager import ModelManager, NoRoom
from engine.nodes import spandrel_models, upscaling
from engine.nodes.spandrel_models import NeedsTorchvision, NoSpandrel, NoUpscaler, import_spandrel
from engine.weights.header import PickleFile
from engine.workspace import Workspace
from tests.families.tiny import make_tiny_sd1
from tests.nodes.context import Context

import_spandrel()  # the imports below work without torchvision after it
from spandrel.architectures.Compact import Compact  # noqa: E402
from spandrel.architectures.ESRGAN import ESRGAN  # noqa: E402


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(Workspace(tmp_path).create())


def folder(ctx: Context) -> Path:
    return ctx.workspace.models / "upscale_models"


def make_compact(ctx: Context, name: str = "compact.safetensors", scale: int = 2) -> torch.nn.Module:
    torch.manual_seed(0)
    net = Compact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=2, upscale=scale)
    save_file(net.state_dict(), folder(ctx) / name)
    return net.eval()


def test_torchvision_is_not_taken_for_installed():
    assert "torchvision" not in sys.modules or sys.modules["torchvision"].__spec__ is not None


@pytest.mark.parametrize("size", [(20, 30), (7, 5)])
def test_a_picture_is_made_larger_by_the_network(ctx: Context, size: tuple[int, int]):
    net, image = make_compact(ctx), torch.rand(2, *size, 4)
    (model,) = upscaling.upscale_model_loader(ctx, "compact.safetensors")
    assert [m["state"] for m in ctx.models.snapshot()["models"]] == ["file"]
    (larger,) = upscaling.image_upscale_with_model(ctx, model, image)
    with torch.no_grad():
        expected = net(image[..., :3].movedim(-1, 1)).movedim(1, -1).clamp(0, 1)
    torch.testing.assert_close(larger, expected, atol=1e-5, rtol=1e-5)
    assert larger.shape == (2, size[0] * 2, size[1] * 2, 3)


def test_esrgan_with_the_prefix_of_parallel_training(ctx: Context):
    net = ESRGAN(in_nc=3, out_nc=3, num_filters=8, num_blocks=1, scale=4)
    tensors = {f"module.{name}": tensor for name, tensor in net.state_dict().items()}
    save_file(tensors, folder(ctx) / "esrgan.safetensors")
    (model,) = upscaling.upscale_model_loader(ctx, "esrgan.safetensors")
    assert upscaling.image_upscale_with_model(ctx, model, torch.rand(1, 8, 8, 3))[0].shape == (1, 32, 32, 3)


def test_grey_pictures_have_three_channels_then(ctx: Context):
    make_compact(ctx)
    (model,) = upscaling.upscale_model_loader(ctx, "compact.safetensors")
    assert upscaling.image_upscale_with_model(ctx, model, torch.rand(1, 8, 8, 1))[0].shape == (1, 16, 16, 3)


def test_large_pictures_go_in_tiles_that_shrink_where_there_is_no_room(ctx: Context, monkeypatch: pytest.MonkeyPatch):
    make_compact(ctx)
    image, told = torch.rand(1, 200, 72, 3), []
    (model,) = upscaling.upscale_model_loader(ctx, "compact.safetensors")
    (whole,) = upscaling.image_upscale_with_model(ctx, model, image)
    monkeypatch.setattr(ctx, "progress", lambda step, total: told.append((step, total)))
    monkeypatch.setattr(upscaling, "TILE", 128)
    monkeypatch.setattr(upscaling, "SMALLEST_TILE", 32)
    monkeypatch.setattr(upscaling, "OVERLAP", 16)
    ctx.models = ModelManager(FakeDevice(70 * 70 * upscaling.WORKING))
    (model,) = upscaling.upscale_model_loader(ctx, "compact.safetensors")
    (tiles,) = upscaling.image_upscale_with_model(ctx, model, image)
    assert float((tiles - whole).abs().max()) < 0.02
    assert told[-1] == (8, 8), "four by two tiles of 64 pixels"
    ctx.models = ModelManager(FakeDevice(1000))
    (model,) = upscaling.upscale_model_loader(ctx, "compact.safetensors")
    with pytest.raises(NoRoom):
        upscaling.image_upscale_with_model(ctx, model, image)


def test_what_is_no_upscaler_is_told(ctx: Context):
    make_tiny_sd1(folder(ctx) / "checkpoint.safetensors")
    grey = Compact(num_in_ch=1, num_out_ch=1, num_feat=8, num_conv=1, upscale=2)
    save_file(grey.state_dict(), folder(ctx) / "grey.safetensors")
    for name, words in (("checkpoint", "not an upscale model"), ("grey", "1 to 1 channels")):
        (model,) = upscaling.upscale_model_loader(ctx, f"{name}.safetensors")
        with pytest.raises(NoUpscaler, match=words):
            upscaling.image_upscale_with_model(ctx, model, torch.rand(1, 8, 8, 3))
    with pytest.raises(NotFound):
        upscaling.upscale_model_loader(ctx, "gone.safetensors")
    torch.save({"a": torch.ones(1)}, folder(ctx) / "old.pth")
    with pytest.raises(PickleFile):
        upscaling.upscale_model_loader(ctx, "old.pth")


def test_without_spandrel_the_node_says_how_to_get_it(ctx: Context, monkeypatch: pytest.MonkeyPatch):
    make_compact(ctx)
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(NoSpandrel, match="pip install --no-deps"):
        upscaling.upscale_model_loader(ctx, "compact.safetensors")


def test_absent_modules_may_be_named_not_called():
    absent: Any = spandrel_models._AbsentModule("torchvision.transforms.functional")
    mode = absent.InterpolationMode.BILINEAR
    with pytest.raises(spandrel_models._NotThere):
        absent.rotate(1, mode)

    class Descriptor:
        model, scale = torch.nn.Identity(), 2

        class architecture:
            name = "LaMa"

        def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
            return absent.rotate(pixels)

    with pytest.raises(NeedsTorchvision, match="big is of the architecture LaMa"):
        spandrel_models.Upscaler(Descriptor(), "big")(torch.zeros(1))
