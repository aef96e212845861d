"""Control LoRAs: a net of the UNet's weights and low-rank pairs is diffusers' ControlNetModel of the merged ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engine.families.base import Components, TextBatch
from engine.families.controls.discover import load_controlnet
from engine.families.parts.filling import MissingWeights
from engine.families.sdxl import SDXL
from engine.models.device import open_device
from engine.models.manager import ModelManager
from engine.nodes import controlnet
from engine.nodes.loaders import checkpoint_loader_simple
from engine.nodes.sampling import ksampler
from engine.weights import control_keys
from engine.workspace import Workspace
from tests.families import tiny_unets
from tests.families.tiny import make_tiny_sd1
from tests.families.tiny_control import tiny_control
from tests.nodes.context import Context

OF = tiny_unets.unet_config(tiny_unets.SDXL)
RANK = 3
Tensors = dict[str, Tensor]


def make_control_lora(path: Path) -> ControlNetModel:
    """Writes the file, and gives the net that it is with the weights of the tiny SDXL."""
    unet = tiny_unets.tiny_unet_modules(tiny_unets.SDXL).unet.state_dict()
    net, generator = tiny_control(of=OF), torch.Generator().manual_seed(3)
    names = control_keys.control_map({**OF, **net.config})
    state, file = net.state_dict(), {control_keys.CONTROL_LORA: torch.zeros(0)}
    for number, (own, tensor) in enumerate(state.items()):
        name = str(names.to_ldm(own))
        if own not in unet or tensor.ndim == 1:
            if own in unet and number % 3 == 0:  # what the file lacks is the UNet's
                state[own] = unet[own]
            else:
                file[name] = tensor
            continue
        up = torch.randn(tensor.shape[0], RANK, generator=generator) * 0.1
        down = torch.randn(RANK, *tensor.shape[1:], generator=generator) * 0.1
        state[own] = unet[own] + (up @ down.flatten(1)).view(tensor.shape)
        layer = name.removesuffix(".weight")
        file |= {f"{layer}.up": up[..., None, None] if tensor.ndim == 4 else up, f"{layer}.down": down}
    save_file({name: tensor.contiguous() for name, tensor in file.items()}, path)
    net.load_state_dict(state)
    return net.eval()


@pytest.fixture
def manager() -> ModelManager:
    return ModelManager(open_device("cpu"))


@pytest.fixture
def tiny(tmp_path: Path, manager: ModelManager) -> Components:
    return SDXL().load_checkpoint(manager, tiny_unets.make_tiny(tmp_path / "xl.safetensors", tiny_unets.SDXL))


def test_it_is_the_net_of_merged_weights(tmp_path: Path, manager: ModelManager, tiny: Components):
    theirs = make_control_lora(tmp_path / "canny-rank3.safetensors")
    net = load_controlnet(manager, tmp_path / "canny-rank3.safetensors")
    assert (net.title, net.factor, net.kind.problem(net, tiny.model)) == ("canny-rank3", 4, "")
    ref = net.of(tiny.model).ref
    assert net.of(tiny.model).ref is ref
    time_ids, pooled = torch.tensor([[64.0, 64, 0, 0, 64, 64]]), torch.randn(1, 32)
    x, t, hint = torch.randn(1, 4, 8, 8), torch.tensor([7.0]), torch.rand(1, 3, 32, 32)
    text = TextBatch(torch.randn(1, 77, 48), pooled, {"time_ids": time_ids})
    size = manager.nbytes(ref)
    with manager.lease(ref, tiny.model.ref) as leased, torch.no_grad():
        said = net.kind.residuals(leased[ref], net, nn.Identity(), x, t, text, hint)
        told = {"text_embeds": pooled, "time_ids": time_ids}
        down, mid = theirs(x, t, text.cross, hint, added_cond_kwargs=told, return_dict=False)
        assert manager.nbytes(ref) == size
    for ours, wanted in zip((*said["down"], *said["mid"]), (*down, mid), strict=True):
        assert float((ours - wanted).norm() / wanted.norm()) < 2e-5


def test_a_file_with_a_hole_is_refused(tmp_path: Path, manager: ModelManager, tiny: Components):
    make_control_lora(tmp_path / "a.safetensors")
    tensors = load_file(tmp_path / "a.safetensors")
    del tensors["zero_convs.3.0.bias"]
    save_file(tensors, tmp_path / "a.safetensors")
    ref = load_controlnet(manager, tmp_path / "a.safetensors").of(tiny.model).ref
    with pytest.raises(MissingWeights, match=r"controlnet_down_blocks\.3\.bias"), manager.lease(ref):
        pass


def test_it_steers_the_model_that_is_sampled(tmp_path: Path):
    workspace = Workspace(tmp_path).create()
    folder, ctx = workspace.models, Context(workspace)
    for name, seed in (("one", 0), ("two", 1)):
        tiny_unets.make_tiny(folder / "checkpoints" / f"{name}.safetensors", tiny_unets.SDXL, seed=seed)
    make_control_lora(folder / "controlnet" / "lora.safetensors")
    make_tiny_sd1(folder / "checkpoints" / "sd1.safetensors")
    (net,) = controlnet.control_net_loader(ctx, "lora.safetensors")
    pooled = {"pooled_output": torch.randn(1, 32)}
    prompt = [[torch.randn(1, 77, 48), pooled]]
    (steered,) = controlnet.control_net_apply(ctx, prompt, net, torch.rand(1, 32, 32, 3), 1.0)
    latent = {"samples": torch.zeros(1, 4, 8, 8)}

    def sampled(name: str, positive: list) -> Tensor:
        model = checkpoint_loader_simple(ctx, f"{name}.safetensors")[0]
        return ksampler(ctx, model, 1, 2, 1.0, "euler", "normal", positive, prompt, latent, 1.0)[0]["samples"]

    for name in ("one", "two"):
        assert not torch.allclose(sampled(name, prompt), sampled(name, steered), atol=1e-3)
    nets = [model for model in ctx.models.snapshot()["models"] if model["role"] == "controlnet"]
    assert len(nets) == 2 and all(model["leases"] == 0 for model in nets)
    sd1 = checkpoint_loader_simple(ctx, "sd1.safetensors")[0]
    assert net.kind.problem(net, sd1) == "SDXL"
