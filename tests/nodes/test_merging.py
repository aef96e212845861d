"""Models made of two: their weights, what acts on the halves, and when nothing has to be made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.families.base import Adapter, Components
from engine.families.parts.adapters import acting
from engine.families.parts.merging import ModelsDiffer
from engine.models.manager import ModelRef
from engine.nodes import merging
from engine.nodes.loaders import checkpoint_loader_simple
from engine.nodes.lora import lora_loader, lora_loader_model_only
from engine.weights.adapter_kinds import Difference, DoRA, ModuleChange
from engine.workspace import Workspace
from tests.families.tiny import make_tiny_sd1
from tests.nodes.context import Context

QUERY = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q"
LORA = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_q"
TEXT = "encoder.layers.0.mlp.fc1"


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    workspace = Workspace(tmp_path).create()
    for seed, name in enumerate(("a", "b")):
        make_tiny_sd1(workspace.models / "checkpoints" / f"{name}.safetensors", seed=seed)
    torch.manual_seed(0)
    lora = {f"{LORA}.lora_down.weight": torch.randn(2, 16), f"{LORA}.lora_up.weight": torch.randn(16, 2)}
    text = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    lora |= {f"{text}.lora_down.weight": torch.randn(2, 32), f"{text}.lora_up.weight": torch.randn(64, 2)}
    save_file(lora, workspace.models / "loras" / "lora.safetensors")
    return Context(workspace)


@pytest.fixture
def a(ctx: Context) -> Components:
    return loaded(ctx, "a")


@pytest.fixture
def b(ctx: Context) -> Components:
    return loaded(ctx, "b")


def loaded(ctx: Context, name: str) -> Components:
    model, clip, vae = checkpoint_loader_simple(ctx, f"{name}.safetensors")
    return Components(model, clip, vae, name, name)


def weights(ctx: Context, ref: ModelRef, adapters: tuple[Adapter, ...] = ()) -> dict[str, Tensor]:
    with ctx.models.lease(ref) as leased:
        found = {name: tensor.clone() for name, tensor in leased[ref].named_parameters()}
    for adapter in adapters:
        for name, entry in adapter.entries.items():
            found[f"{name}.weight"] += adapter.strength * entry.scale * (entry.up @ entry.down)  # type: ignore[union-attr]
    return found


def test_every_weight_is_mixed(ctx: Context, a: Components, b: Components):
    first, second = weights(ctx, a.model.ref), weights(ctx, b.model.ref)
    for node, expected in {
        lambda: merging.model_merge_simple(ctx, a.model, b.model, 0.3): lambda n: first[n] * 0.3 + second[n] * 0.7,
        lambda: merging.model_merge_add(ctx, a.model, b.model): lambda n: first[n] + second[n],
        lambda: merging.model_merge_subtract(ctx, a.model, b.model, 2.0): lambda n: 2.0 * (first[n] - second[n]),
    }.items():
        (model,) = node()
        assert model.config == a.model.config and "file" in states(ctx, model.ref)
        made = weights(ctx, model.ref)
        for name, tensor in made.items():
            torch.testing.assert_close(tensor, expected(name))
    assert all(torch.equal(tensor, first[name]) for name, tensor in weights(ctx, a.model.ref).items())


def states(ctx: Context, ref: ModelRef) -> list[str]:
    return [model["state"] for model in ctx.models.snapshot()["models"] if model["key"] == ref.key]


def test_an_equal_merge_is_one_model_and_another_is_another(ctx: Context, a: Components, b: Components):
    one, same, other = (merging.model_merge_simple(ctx, a.model, b.model, ratio)[0].ref for ratio in (0.5, 0.5, 0.6))
    assert one == same != other


def test_blocks_have_ratios_of_their_own(ctx: Context, a: Components, b: Components):
    (model,) = merging.model_merge_blocks(ctx, a.model, b.model, 1.0, 0.5, 0.0)
    first, second, made = (weights(ctx, ref) for ref in (a.model.ref, b.model.ref, model.ref))
    expected = {"conv_in": 1.0, "down_blocks": 1.0, "time_embedding": 1.0, "mid_block": 0.5}  # the rest is 0
    for name, tensor in made.items():
        ratio = expected.get(name.split(".")[0], 0.0)
        torch.testing.assert_close(tensor, first[name] * ratio + second[name] * (1 - ratio))
    assert merging.model_merge_blocks(ctx, a.model, b.model, 0.5, 0.5, 0.5)[0].ref.key.startswith("merge/")


def test_two_states_of_one_file_are_merged_without_making_anything(ctx: Context, a: Components):
    (with_lora,) = lora_loader_model_only(ctx, a.model, "lora.safetensors", 1.0)
    (model,) = merging.model_merge_simple(ctx, a.model, with_lora, 0.4)
    assert model.ref == a.model.ref and [x.strength for x in model.adapters] == pytest.approx([0.6])
    (again,) = merging.model_merge_simple(ctx, with_lora, model, 0.5)
    assert [x.strength for x in again.adapters] == pytest.approx([0.8])


def test_what_acts_on_a_half_is_in_its_share(ctx: Context, a: Components, b: Components):
    (with_lora,) = lora_loader_model_only(ctx, b.model, "lora.safetensors", 0.5)
    (model,) = merging.model_merge_simple(ctx, a.model, with_lora, 0.25)
    first, second = weights(ctx, a.model.ref), weights(ctx, b.model.ref, with_lora.adapters)
    assert model.adapters == ()
    for name, tensor in weights(ctx, model.ref).items():
        torch.testing.assert_close(tensor, first[name] * 0.25 + second[name] * 0.75)
    (stronger,) = lora_loader_model_only(ctx, b.model, "lora.safetensors", 0.6)
    (other,) = merging.model_merge_simple(ctx, a.model, stronger, 0.25)
    assert other.ref != model.ref
    (on_top,) = lora_loader_model_only(ctx, model, "lora.safetensors", 0.5)
    assert len(on_top.adapters) == 1


def test_what_is_no_sum_goes_into_the_weights_even_of_one_file(ctx: Context, a: Components):
    change = ModuleChange((DoRA(Difference(torch.zeros(16, 16)), torch.full((16, 1), 2.0)),))
    turned = replace(a.model, adapters=(Adapter("dora", "dora", 1.0, {QUERY: change}),))
    (model,) = merging.model_merge_simple(ctx, a.model, turned, 0.5)
    plain = weights(ctx, a.model.ref)[f"{QUERY}.weight"]
    expected = 0.5 * plain + 0.5 * 2.0 * plain / plain.norm(dim=1, keepdim=True)
    torch.testing.assert_close(weights(ctx, model.ref)[f"{QUERY}.weight"], expected)


def test_text_encoders_are_merged_with_what_acts_on_them(ctx: Context, a: Components, b: Components):
    _, clip = lora_loader(ctx, a.model, a.clip, "lora.safetensors", 0.0, 1.0)
    (half,) = merging.clip_merge_simple(ctx, clip, a.clip, 0.5)
    assert half.refs == a.clip.refs and [(x.strength, x.part) for x in half.adapters] == [(0.5, "text_encoder")]
    (made,) = merging.clip_merge_add(ctx, clip, b.clip)
    first, second = weights(ctx, a.clip.refs[0], clip.adapters), weights(ctx, b.clip.refs[0])
    for name, tensor in weights(ctx, made.refs[0]).items():
        torch.testing.assert_close(tensor, first[name] + second[name])
    assert merging.clip_merge_subtract(ctx, a.clip, b.clip, 1.0)[0].refs != made.refs


def test_models_of_other_sizes_are_refused_by_the_layer(ctx: Context, a: Components):
    modules = {**a.model.modules, QUERY: (8, 8)}
    with pytest.raises(ModelsDiffer, match=r"to_q' is \(16, 16\) in one and \(8, 8\)"):
        merging.model_merge_simple(ctx, a.model, replace(a.model, modules=modules), 0.5)


def test_a_merge_runs_as_its_parts_do(ctx: Context, a: Components, b: Components):
    """With all of the first it is the first, though its weights are a model of their own."""
    (model,) = merging.model_merge_simple(ctx, a.model, b.model, 1.0)
    x, t, cross = torch.randn(1, 4, 8, 8), torch.tensor([3.0]), torch.randn(1, 77, 32)
    with ctx.models.lease(model.ref, a.model.ref) as leased, torch.no_grad(), acting(leased[model.ref], ()) as module:
        torch.testing.assert_close(module(x, t, cross)[0], leased[a.model.ref](x, t, cross)[0])
