"""A LoRA extracted from the difference of two models, under the names that other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.families.base import Clip, Model
from engine.nodes.loaders import checkpoint_loader_simple
from engine.nodes.lora import lora_loader, lora_loader_model_only
from engine.nodes.lora_saving import NoDifference, lora_save, low_rank
from engine.nodes.merging import clip_merge_subtract, model_merge_subtract
from engine.nodes.model_saving import model_save
from engine.workspace import Workspace
from tests.families.tiny import make_tiny_sd1
from tests.families.tiny_dit import make_flux_checkpoint, tiny_flux
from tests.nodes.context import Context
from tests.nodes.test_merging import LORA

MIDDLE = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_q"
TEXT = "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1"


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    workspace = Workspace(tmp_path).create()
    make_tiny_sd1(workspace.models / "checkpoints" / "a.safetensors", dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.3

    lora = {f"{LORA}.lora_down.weight": random(2, 16), f"{LORA}.lora_up.weight": random(16, 2)}
    conv = "lora_unet_down_blocks_0_resnets_0_conv1"
    lora |= {f"{conv}.lora_down.weight": random(2, 8, 3, 3), f"{conv}.lora_up.weight": random(8, 2, 1, 1)}
    text = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    lora |= {f"{text}.lora_down.weight": random(2, 32), f"{text}.lora_up.weight": random(64, 2)}
    lora |= {"lora_unet_conv_norm_out.diff": random(8), "lora_unet_conv_norm_out.diff_b": random(8)}
    save_file(lora, workspace.models / "loras" / "lora.safetensors")
    return Context(workspace, prompt={"1": {"class_type": "LoraSave", "inputs": {}}})


@pytest.fixture
def differences(ctx: Context) -> tuple[Model, Clip]:
    model, clip, _ = checkpoint_loader_simple(ctx, "a.safetensors")
    changed, told = lora_loader(ctx, model, clip, "lora.safetensors", 1.0, 1.0)
    return model_merge_subtract(ctx, changed, model, 1.0)[0], clip_merge_subtract(ctx, told, clip, 1.0)[0]


def saved(ctx: Context, made: dict[str, Any]) -> Path:
    (one,) = made["ui"]["models"]
    return ctx.workspace.output / one["subfolder"] / one["filename"]


def test_a_low_rank_pair_is_the_nearest_of_its_rank():
    weight = torch.randn(6, 10, generator=torch.Generator().manual_seed(1))
    sizes = torch.linalg.svdvals(weight)
    for rank in (1, 3, 6, 99):
        up, down = low_rank(weight, rank)
        assert up.shape == (6, min(rank, 6)) and down.shape == (min(rank, 6), 10)
        left = torch.linalg.norm(weight - up.float() @ down.float())
        assert left.item() == pytest.approx(sizes[rank:].square().sum().sqrt().item(), abs=5e-3)


def test_what_a_lora_changed_comes_back_and_nothing_else(ctx: Context, differences: tuple[Model, Clip]):
    path = saved(ctx, lora_save(ctx, "loras/x", 2, "standard", True, *differences))
    assert path == ctx.workspace.output / "loras" / "x_00001_.safetensors"
    found, given = load_file(path), load_file(ctx.workspace.models / "loras" / "lora.safetensors")
    conv = "diffusion_model.input_blocks.1.0.in_layers.2"
    pairs = {MIDDLE: LORA, conv: "lora_unet_down_blocks_0_resnets_0_conv1"}
    pairs[TEXT] = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    assert set(found) == {f"{name}.lora_{half}.weight" for name in pairs for half in ("up", "down")} | {
        "diffusion_model.out.0.diff",
        "diffusion_model.out.0.diff_b",
    }
    for name, other in pairs.items():
        ours = [found[f"{name}.lora_{half}.weight"].float() for half in ("up", "down")]
        theirs = [given[f"{other}.lora_{half}.weight"] for half in ("up", "down")]
        torch.testing.assert_close(product(*ours), product(*theirs), rtol=2e-3, atol=2e-3)
    assert found[f"{conv}.lora_down.weight"].shape == (2, 8, 3, 3)
    assert found[f"{conv}.lora_up.weight"].shape == (8, 2, 1, 1)
    torch.testing.assert_close(found["diffusion_model.out.0.diff"], given["lora_unet_conv_norm_out.diff"].half())
    assert {tensor.dtype for tensor in found.values()} == {torch.float16}
    with safe_open(path, "pt") as file:
        about = file.metadata()
    assert about["modelspec.architecture"] == "stable-diffusion-v1/lora" and about["ss_network_dim"] == "2"
    assert '"LoraSave"' in about["prompt"]


def product(up: Tensor, down: Tensor) -> Tensor:
    return up.flatten(1) @ down.flatten(1)


def test_it_loads_as_a_lora_and_makes_the_same_model(ctx: Context, differences: tuple[Model, Clip]):
    lora_save(ctx, "loras/x", 2, "standard", True, *differences)
    model, clip, _ = checkpoint_loader_simple(ctx, "a.safetensors")
    wanted, _ = lora_loader(ctx, model, clip, "lora.safetensors", 1.0, 1.0)
    made, told = lora_loader(ctx, model, clip, "x_00001_.safetensors", 1.0, 1.0)
    assert ctx.warnings == [] and len(told.adapters) == 1
    first, second = (load_file(saved(ctx, model_save(ctx, one, "diffusion_models/m"))) for one in (wanted, made))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=2e-3, atol=2e-3)


def test_whole_differences_and_biases_are_saved_as_asked(ctx: Context, differences: tuple[Model, Clip]):
    whole = load_file(saved(ctx, lora_save(ctx, "loras/x", 2, "full_diff", True, differences[0])))
    assert set(whole) == {
        f"{MIDDLE}.diff",
        "diffusion_model.input_blocks.1.0.in_layers.2.diff",
        "diffusion_model.out.0.diff",
        "diffusion_model.out.0.diff_b",
    }
    assert whole[f"{MIDDLE}.diff"].shape == (16, 16)
    (applied,) = lora_loader_model_only(
        ctx, checkpoint_loader_simple(ctx, "a.safetensors")[0], "x_00001_.safetensors", 1
    )
    assert len(applied.adapters[0].entries) == 3
    no_biases = load_file(saved(ctx, lora_save(ctx, "loras/y", 2, "standard", False, differences[0])))
    assert not any(name.endswith(("diff", "diff_b")) for name in no_biases) and len(no_biases) == 4
    text = load_file(saved(ctx, lora_save(ctx, "loras/z", 1, "standard", True, None, differences[1])))
    assert set(text) == {f"{TEXT}.lora_up.weight", f"{TEXT}.lora_down.weight"}


def test_layers_that_a_file_has_in_one_piece_have_one_pair(ctx: Context):
    folder = ctx.workspace.models / "checkpoints"
    make_flux_checkpoint(folder / "one.safetensors")
    other = tiny_flux()
    with torch.no_grad():
        other.transformer_blocks[0].attn.to_k.weight += torch.outer(torch.ones(64), torch.ones(64)) * 0.5
    make_flux_checkpoint(folder / "two.safetensors", other)
    one, two = (checkpoint_loader_simple(ctx, f"{name}.safetensors")[0] for name in ("one", "two"))
    (difference,) = model_merge_subtract(ctx, two, one, 1.0)
    found = load_file(saved(ctx, lora_save(ctx, "loras/flux", 1, "standard", True, difference)))
    layer = "diffusion_model.double_blocks.0.img_attn.qkv"
    assert set(found) == {f"{layer}.lora_up.weight", f"{layer}.lora_down.weight"}
    rows = product(found[f"{layer}.lora_up.weight"].float(), found[f"{layer}.lora_down.weight"].float())
    assert rows.shape == (192, 64) and rows[:64].abs().max() < 1e-3 and rows[128:].abs().max() < 1e-3
    torch.testing.assert_close(rows[64:128], torch.full((64, 64), 0.5), rtol=0.01, atol=0.01)
    (applied,) = lora_loader_model_only(ctx, one, "flux_00001_.safetensors", 1.0)
    assert len(applied.adapters[0].entries) == 3


def test_without_a_difference_there_is_nothing_to_save(ctx: Context):
    with pytest.raises(NoDifference, match="nothing is connected"):
        lora_save(ctx, "loras/x", 8, "standard", True)
    model, _, _ = checkpoint_loader_simple(ctx, "a.safetensors")
    (same,) = model_merge_subtract(ctx, model, model, 1.0)
    with pytest.raises(NoDifference, match="all weights are zero"):
        lora_save(ctx, "loras/x", 8, "standard", True, same)
    assert not (ctx.workspace.output / "loras").exists()
