"""ControlNets of UNets: files of every layout, fit, residuals against diffusers' own pipeline of calls."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.models.controlnets.controlnet_union import ControlNetUnionModel
from safetensors.torch import load_file, save_file
from torch import nn

from engine.families.base import Components, TextBatch
from engine.families.controls.base import Control, NotAControlNet, UnknownControlType, added
from engine.families.controls.discover import load_controlnet
from engine.families.parts.filling import MissingWeights
from engine.families.sd1 import SD1
from engine.families.sdxl import SDXL
from engine.models.device import open_device
from engine.models.manager import ModelManager
from tests.families import tiny_unets
from tests.families.tiny import UNET, make_tiny_sd1
from tests.families.tiny_control import HINT, about, make_tiny_control, tiny_control


@pytest.fixture
def manager() -> ModelManager:
    return ModelManager(open_device("cpu"))


@pytest.fixture
def tiny(tmp_path: Path, manager: ModelManager) -> Components:
    return SD1().load_checkpoint(manager, make_tiny_sd1(tmp_path / "tiny.safetensors"))


@pytest.mark.parametrize("layout", ["ldm", "bare", "diffusers"])
def test_weights_of_every_layout_arrive_in_their_module(tmp_path: Path, manager: ModelManager, layout):
    net = load_controlnet(manager, make_tiny_control(tmp_path / "a.safetensors", layout=layout))
    assert (net.factor, net.latent, net.title) == (4, None, "a")
    assert {m["state"] for m in manager.snapshot()["models"]} == {"file"}
    size = manager.snapshot()["models"][0]["nbytes"]
    with manager.lease(net.ref) as leased:
        ours, theirs = leased[net.ref].state_dict(), tiny_control().state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name].half().float()) for name in theirs)
    assert manager.snapshot()["models"][0]["nbytes"] == size


def test_residuals_and_prediction_are_diffusers_own(tmp_path: Path, manager: ModelManager, tiny: Components):
    net = load_controlnet(manager, make_tiny_control(tmp_path / "a.safetensors", dtype=torch.float32))
    x, t, hint = torch.randn(2, 4, 8, 8), torch.tensor([7.0, 7.0]), torch.rand(2, 3, 32, 32)
    text = TextBatch(torch.randn(2, 77, 32))
    with manager.lease(net.ref, tiny.model.ref) as leased, torch.no_grad():
        said = net.kind.residuals(leased[net.ref], net, nn.Identity(), x, t, text, hint)
        down, mid = tiny_control()(x, t, text.cross, hint, return_dict=False)
        assert len(said["down"]) == len(down) == 9
        torch.testing.assert_close(list(said["down"]), list(down))
        torch.testing.assert_close(said["mid"][0], mid)
        unet = leased[tiny.model.ref]
        ours = tiny.model.family.predict(unet, x, t, text, said)
        theirs = unet(
            x, t, text.cross, down_block_additional_residuals=down, mid_block_additional_residual=mid, return_dict=False
        )[0]
        torch.testing.assert_close(ours, theirs)
        assert not torch.allclose(ours, tiny.model.family.predict(unet, x, t, text))


def test_a_net_of_shuffled_pictures_says_one_value_a_channel(tmp_path: Path, manager: ModelManager):
    net = load_controlnet(manager, make_tiny_control(tmp_path / "control_shuffle.safetensors"))
    text = TextBatch(torch.randn(1, 77, 32))
    with manager.lease(net.ref) as leased, torch.no_grad():
        said = net.kind.residuals(
            leased[net.ref],
            net,
            nn.Identity(),
            torch.randn(1, 4, 8, 8),
            torch.tensor([7.0]),
            text,
            torch.rand(1, 3, 32, 32),
        )
    assert {tuple(residual.shape[2:]) for residual in (*said["down"], *said["mid"])} == {(1, 1)}


def test_a_net_fits_models_of_its_family_and_sizes_only(tmp_path: Path, manager: ModelManager, tiny: Components):
    net = load_controlnet(manager, make_tiny_control(tmp_path / "a.safetensors"))
    assert net.kind.problem(net, tiny.model) == ""
    other = replace(tiny.model, config={**tiny.model.config, "cross_attention_dim": 768})
    assert net.kind.problem(net, other) == "Stable Diffusion 1.x of other sizes"


def test_other_files_are_refused_by_what_they_are(tmp_path: Path, manager: ModelManager):
    with pytest.raises(NotAControlNet, match=r"checkpoint, Stable Diffusion 1\.x"):
        load_controlnet(manager, make_tiny_sd1(tmp_path / "tiny.safetensors"))
    save_file({"a": torch.ones(1)}, tmp_path / "b.safetensors")
    with pytest.raises(NotAControlNet, match="embedding"):
        load_controlnet(manager, tmp_path / "b.safetensors")


def test_a_net_with_a_hole_is_refused(tmp_path: Path, manager: ModelManager):
    tensors = load_file(make_tiny_control(tmp_path / "a.safetensors"))
    del tensors["control_model.zero_convs.3.0.bias"]
    save_file(tensors, tmp_path / "a.safetensors", metadata=about())
    net = load_controlnet(manager, tmp_path / "a.safetensors")
    with pytest.raises(MissingWeights, match=r"controlnet_down_blocks\.3\.bias"), manager.lease(net.ref):
        pass


def test_a_file_of_differences_is_added_to_its_model(tmp_path: Path, manager: ModelManager, tiny: Components):
    tensors = load_file(make_tiny_control(tmp_path / "a.safetensors"))
    save_file({**tensors, "difference": torch.zeros(1)}, tmp_path / "d.safetensors", metadata=about())
    whole = load_controlnet(manager, tmp_path / "d.safetensors")
    net = load_controlnet(manager, tmp_path / "d.safetensors", tiny.model)
    with manager.lease(net.ref, whole.ref, tiny.model.ref) as leased:
        made, plain, unet = (leased[ref].state_dict() for ref in (net.ref, whole.ref, tiny.model.ref))
        assert torch.equal(made["conv_in.weight"], plain["conv_in.weight"] + unet["conv_in.weight"])
        assert torch.equal(made["controlnet_mid_block.weight"], plain["controlnet_mid_block.weight"])


def make_union(path: Path) -> ControlNetUnionModel:
    torch.manual_seed(0)
    half = {k: v for k, v in UNET.items() if k not in ("up_block_types", "out_channels")}
    half |= {"conditioning_embedding_out_channels": HINT, "num_control_type": 3, "num_trans_channel": 8}
    net = ControlNetUnionModel(**half, num_proj_channel=8, num_trans_head=8, addition_time_embed_dim=256)
    for parameter in net.parameters():
        parameter.data = torch.randn_like(parameter) * 0.1
    words = '{"attention_head_dim": 2, "norm_num_groups": 4, "addition_time_embed_dim": 256}'
    save_file(net.state_dict(), path, metadata={"easel.unet": words})
    return net.eval()


def test_a_union_is_told_its_type(tmp_path: Path, manager: ModelManager):
    theirs = make_union(tmp_path / "union.safetensors")
    net = load_controlnet(manager, tmp_path / "union.safetensors")
    x, t, text = torch.randn(1, 4, 8, 8), torch.tensor([7.0]), TextBatch(torch.randn(1, 77, 32))
    hint = torch.rand(1, 3, 32, 32)

    def said(*kinds: int) -> torch.Tensor:
        typed = replace(net, options={"control_type": kinds})
        with manager.lease(net.ref) as leased, torch.no_grad():
            return net.kind.residuals(leased[net.ref], typed, nn.Identity(), x, t, text, hint)["mid"][0]

    with torch.no_grad():
        types = torch.tensor([[0.0, 1.0, 0.0]])
        expected = theirs(x, t, text.cross, [hint], types, [1], conditioning_scale=[1.0], return_dict=False)[1]
    torch.testing.assert_close(said(1), expected)
    assert not torch.allclose(said(1), said(2)) and not torch.allclose(said(1), said())
    with pytest.raises(UnknownControlType, match="3 types"):
        said(7)


def test_chains_add_up_place_by_place():
    one = torch.ones(1)
    assert added({"down": [one, one]}, {"down": [one], "mid": [one]}) == {"down": [one + one, one], "mid": [one]}
    net = object()
    first = Control(net, one)  # type: ignore[arg-type]
    last = Control(net, one, previous=first)  # type: ignore[arg-type]
    assert list(last.chain()) == [last, first]


@pytest.mark.parametrize("layout", ["bare", "diffusers"])
def test_a_net_of_sdxl_is_told_sizes_and_pooled_text(tmp_path: Path, manager: ModelManager, layout):
    of = tiny_unets.unet_config(tiny_unets.SDXL)
    net = load_controlnet(manager, make_tiny_control(tmp_path / "a.safetensors", layout=layout, of=of))
    model = SDXL().load_checkpoint(manager, tiny_unets.make_tiny(tmp_path / "xl.safetensors", tiny_unets.SDXL)).model
    assert net.kind.problem(net, model) == ""
    text = TextBatch(torch.randn(1, 77, 48), torch.randn(1, 32), {"time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]])})
    inputs = torch.randn(1, 4, 8, 8), torch.tensor([7.0]), text
    with manager.lease(net.ref, model.ref) as leased, torch.no_grad():
        said = net.kind.residuals(leased[net.ref], net, nn.Identity(), *inputs, torch.rand(1, 3, 32, 32))
        plain, controlled = (model.family.predict(leased[model.ref], *inputs, control) for control in (None, said))
    assert torch.isfinite(controlled).all() and not torch.allclose(plain, controlled)


def test_a_net_of_another_family_names_it(tmp_path: Path, manager: ModelManager, tiny: Components):
    of = tiny_unets.unet_config(tiny_unets.SDXL)
    net = load_controlnet(manager, make_tiny_control(tmp_path / "a.safetensors", layout="diffusers", of=of))
    assert net.kind.problem(net, tiny.model) == "SDXL"
