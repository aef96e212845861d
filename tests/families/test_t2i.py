"""T2I adapters in TencentARC's and diffusers' names, against diffusers' own classes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.adapter import T2IAdapter
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.families.base import Model, TextBatch
from engine.families.controls.discover import load_controlnet
from engine.families.sd1 import SD1
from engine.families.sdxl import SDXL
from engine.models.device import open_device
from engine.models.manager import ModelManager
from engine.nodes import controlnet
from engine.nodes.conditioning import clip_text_encode
from engine.nodes.loaders import checkpoint_loader_simple
from engine.nodes.sampling import ksampler
from engine.weights.header import read_header
from engine.weights.identify import identify
from engine.weights.keymaps import UnknownLayout
from engine.workspace import Workspace
from tests.families import tiny_unets
from tests.families.tiny import make_tiny_sd1
from tests.nodes.context import Context

FULL: dict[str, Any] = {"channels": [8, 16, 16]}
LIGHT: dict[str, Any] = {"channels": [8, 16], "num_res_blocks": 4, "adapter_type": "light_adapter"}
XL: dict[str, Any] = {"channels": [8, 16, 16, 16], "downscale_factor": 16, "adapter_type": "full_adapter_xl"}


@pytest.fixture
def manager() -> ModelManager:
    return ModelManager(open_device("cpu"))


def tiny_adapter(config: dict[str, Any], **changes: Any) -> T2IAdapter:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return T2IAdapter(**{**config, **changes}).eval()


def tencent(adapter: T2IAdapter) -> dict[str, Tensor]:
    """As TencentARC's files name them: the layers of all levels are counted through, light ones lie in a body."""
    light = adapter.config["adapter_type"] == "light_adapter"

    def old(name: str) -> str:
        name = name.removeprefix("adapter.")
        if light:
            return name.replace(".resnets.", ".body.")
        name = re.sub(r"body\.(\d)\.resnets\.(\d)", lambda m: f"body.{2 * int(m[1]) + int(m[2])}", name)
        return re.sub(r"body\.(\d)\.in_conv", lambda m: f"body.{2 * int(m[1])}.in_conv", name)

    return {old(name): tensor for name, tensor in adapter.state_dict().items()}


def saved(tensors: dict[str, Tensor], path: Path) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


@pytest.mark.parametrize("layout", ["tencent", "diffusers"])
@pytest.mark.parametrize("config", [FULL, LIGHT, XL], ids=["full", "light", "xl"])
def test_adapters_of_every_layout_say_what_diffusers_does(
    tmp_path: Path, manager: ModelManager, config: dict[str, Any], layout: str
):
    theirs = tiny_adapter(config)
    tensors = tencent(theirs) if layout == "tencent" else theirs.state_dict()
    path = saved(tensors, tmp_path / "adapter.safetensors")
    net = load_controlnet(manager, path)
    assert (net.still, net.latent, net.multiple) == (True, None, config.get("downscale_factor", 8))
    assert identify(read_header(path)).kind == "controlnet"
    hint, text = torch.rand(2, 3, 64, 96), TextBatch(torch.zeros(2, 1, 1))
    with manager.lease(net.ref) as leased, torch.no_grad():
        said = net.kind.residuals(leased[net.ref], net, nn.Identity(), torch.zeros(2, 4, 8, 12), hint, text, hint)
        torch.testing.assert_close(list(said["intra"]), theirs(hint))


def test_an_adapter_for_one_channel_sees_the_mean_of_them(tmp_path: Path, manager: ModelManager):
    theirs = tiny_adapter(FULL, in_channels=1)
    net = load_controlnet(manager, saved(tencent(theirs), tmp_path / "sketch.safetensors"))
    hint, text = torch.rand(1, 3, 64, 64), TextBatch(torch.zeros(1, 1, 1))
    with manager.lease(net.ref) as leased, torch.no_grad():
        said = net.kind.residuals(leased[net.ref], net, nn.Identity(), torch.zeros(1, 4, 8, 8), hint, text, hint)
        torch.testing.assert_close(list(said["intra"]), theirs((hint[:, :1] + hint[:, 1:2] + hint[:, 2:]) / 3))


def moved(manager: ModelManager, model: Model, theirs: T2IAdapter, net: Any, x: Tensor, text: TextBatch):
    """Our UNet's answer beside the adapter, and that of diffusers' UNet."""
    sides = [-(-side * 8 // net.multiple) * net.multiple for side in x.shape[-2:]]
    t, hint = torch.tensor([7.0]), torch.rand(1, 3, *sides)
    with manager.lease(net.ref, model.ref) as leased, torch.no_grad():
        unet = leased[model.ref]
        said = net.kind.residuals(leased[net.ref], net, unet, x, t, text, hint)
        ours = model.family.predict(unet, x, t, text, said)
        more: dict[str, Any] = {"down_intrablock_additional_residuals": theirs(hint)}
        if text.pooled is not None:
            more["added_cond_kwargs"] = {"text_embeds": text.pooled, **text.extra}
        torch.testing.assert_close(ours, unet(x, t, text.cross, return_dict=False, **more)[0])
        assert not torch.allclose(ours, model.family.predict(unet, x, t, text), atol=1e-3)


@pytest.mark.parametrize("side", [8, 9])
def test_adapters_move_stable_diffusion(tmp_path: Path, manager: ModelManager, side: int):
    model, theirs = (
        SD1().load_checkpoint(manager, make_tiny_sd1(tmp_path / "tiny.safetensors")).model,
        tiny_adapter(FULL),
    )
    net = load_controlnet(manager, saved(tencent(theirs), tmp_path / "adapter.safetensors"))
    assert net.kind.problem(net, model) == ""
    moved(manager, model, theirs, net, torch.randn(1, 4, side, 8), TextBatch(torch.randn(1, 77, 32)))


@pytest.mark.parametrize("side", [8, 9])
def test_adapters_move_sdxl_at_its_middle_as_well(tmp_path: Path, manager: ModelManager, side: int):
    path = tiny_unets.make_tiny(tmp_path / "xl.safetensors", tiny_unets.SDXL)
    model, theirs = SDXL().load_checkpoint(manager, path).model, tiny_adapter(XL)
    net = load_controlnet(manager, saved(theirs.state_dict(), tmp_path / "adapter.safetensors"))
    assert net.kind.problem(net, model) == ""
    told = {"time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]])}
    text = TextBatch(torch.randn(1, 77, 48), torch.randn(1, 32), told)
    moved(manager, model, theirs, net, torch.randn(1, 4, side, 8), text)


def test_adapters_fit_their_families_only(tmp_path: Path, manager: ModelManager):
    sd1 = SD1().load_checkpoint(manager, make_tiny_sd1(tmp_path / "tiny.safetensors")).model
    xl = SDXL().load_checkpoint(manager, tiny_unets.make_tiny(tmp_path / "xl.safetensors", tiny_unets.SDXL)).model
    nets = [tiny_adapter(FULL), tiny_adapter(LIGHT), tiny_adapter(XL)]
    full, light, large = (
        load_controlnet(manager, saved(net.state_dict(), tmp_path / f"{i}.safetensors")) for i, net in enumerate(nets)
    )
    for net, fits, other in ((full, sd1, xl), (light, sd1, xl), (large, xl, sd1)):
        assert net.kind.problem(net, fits) == "" and net.kind.problem(net, other) == fits.family.spec.title
    wider = replace(sd1, config={**sd1.config, "block_out_channels": (320, 640, 1280)})
    assert full.kind.problem(full, wider) == "Stable Diffusion 1.x of other sizes"


def test_what_is_like_an_adapter_and_none_is_refused(tmp_path: Path, manager: ModelManager):
    tensors = tencent(tiny_adapter(FULL))
    with pytest.raises(UnknownLayout, match="down_opt"):
        more = {**tensors, "body.2.down_opt.op.weight": torch.zeros(1)}
        load_controlnet(manager, saved(more, tmp_path / "a.safetensors"))
    with pytest.raises(UnknownLayout, match="sees 7 channels"):
        odd = {**tensors, "conv_in.weight": torch.zeros(8, 7, 3, 3)}
        load_controlnet(manager, saved(odd, tmp_path / "b.safetensors"))


def test_a_run_asks_an_adapter_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ctx = Context(Workspace(tmp_path).create())
    make_tiny_sd1(ctx.workspace.models / "checkpoints" / "tiny.safetensors")
    saved(tencent(tiny_adapter(FULL)), ctx.workspace.models / "controlnet" / "adapter.safetensors")
    model, clip, _ = checkpoint_loader_simple(ctx, "tiny.safetensors")
    (net,) = controlnet.control_net_loader(ctx, "adapter.safetensors")
    positive, negative = (clip_text_encode(ctx, text, clip)[0] for text in ("a red cat", "blue"))
    asked = []
    forward = T2IAdapter.forward
    monkeypatch.setattr(T2IAdapter, "forward", lambda self, x: asked.append(x.shape) or forward(self, x))

    def run(strength: float) -> Tensor:
        sides = controlnet.control_net_apply_advanced(
            ctx, positive, negative, net, torch.rand(1, 32, 32, 3, generator=torch.manual_seed(1)), strength, 0.0, 1.0
        )
        latent = {"samples": torch.zeros(1, 4, 8, 8)}
        return ksampler(ctx, model, 1, 4, 4.0, "euler", "normal", *sides, latent, 1.0)[0]["samples"]

    made = [run(strength) for strength in (0.0, 0.5, 1.0)]
    assert asked == [(2, 3, 64, 64)] * 2, "both prompts in one call, of four steps the first"
    assert min(float((made[i] - made[j]).norm()) for i, j in ((0, 1), (0, 2), (1, 2))) > 1e-3
