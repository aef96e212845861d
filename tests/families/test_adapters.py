from typing import cast

import pytest
import torch
from torch import nn

from engine.families.base import Adapter
from engine.families.parts.adapters import acting, made_bytes
from engine.models.loaded import TorchModel
from engine.weights.adapter_kinds import Difference, DoRA, LowRank, ModuleChange
from engine.weights.lora import LoraEntry


@pytest.fixture
def layers() -> nn.ModuleDict:
    torch.manual_seed(0)
    modules = {"linear": nn.Linear(6, 5), "conv": nn.Conv2d(6, 5, 3, stride=2, padding=1), "point": nn.Conv2d(6, 5, 1)}
    return nn.ModuleDict(modules).requires_grad_(False)


def adapter(strength: float, entries: dict[str, LoraEntry]) -> Adapter:
    return Adapter("key", "title", strength, entries)


def random_entry(*kernel: int, alpha: float | None = 1.0) -> LoraEntry:
    return LoraEntry(torch.randn(2, 6, *kernel), torch.randn(5, 2, *(1 for _ in kernel)), alpha=alpha)


def test_a_linear_layer_gets_the_merged_result(layers: nn.ModuleDict):
    entry, x = random_entry(), torch.randn(3, 6)
    merged = layers["linear"](x) + 0.7 * 0.5 * x @ (entry.up @ entry.down).T
    with acting(layers, [adapter(0.7, {"linear": entry})]):
        torch.testing.assert_close(layers["linear"](x), merged)


def test_a_convolution_gets_the_merged_result(layers: nn.ModuleDict):
    entry, x = random_entry(3, 3), torch.randn(2, 6, 8, 8)
    delta = torch.einsum("or,rihw->oihw", entry.up[:, :, 0, 0], entry.down)
    conv = cast(nn.Conv2d, layers["conv"])
    merged = torch.conv2d(x, conv.weight - 2 * 0.5 * delta, conv.bias, stride=2, padding=1)
    with acting(layers, [adapter(-2, {"conv": entry})]):
        torch.testing.assert_close(conv(x), merged, atol=1e-5, rtol=1e-5)


def test_a_tucker_core_stands_between(layers: nn.ModuleDict):
    entry = LoraEntry(torch.randn(2, 6, 1, 1), torch.randn(5, 3, 1, 1), torch.randn(3, 2, 3, 3))
    assert entry.mid is not None
    delta = torch.einsum("or,rshw,si->oihw", entry.up[:, :, 0, 0], entry.mid, entry.down[:, :, 0, 0])
    x, conv = torch.randn(2, 6, 8, 8), cast(nn.Conv2d, layers["conv"])
    merged = torch.conv2d(x, conv.weight + delta, conv.bias, stride=2, padding=1)
    with acting(layers, [adapter(1.0, {"conv": entry})]):
        torch.testing.assert_close(conv(x), merged, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kernel", [(), (1, 1)])
def test_a_pointwise_convolution_takes_both_shapes(layers: nn.ModuleDict, kernel: tuple[int, ...]):
    entry, x = random_entry(*kernel), torch.randn(1, 6, 4, 4)
    delta = entry.up.flatten(1) @ entry.down.flatten(1)
    merged = layers["point"](x) + 0.5 * torch.einsum("oi,bihw->bohw", delta, x)
    with acting(layers, [adapter(1.0, {"point": entry})]):
        torch.testing.assert_close(layers["point"](x), merged)


def test_several_stack_and_none_is_left_behind(layers: nn.ModuleDict):
    x, a, b = torch.randn(3, 6), random_entry(), random_entry(alpha=None)
    plain = layers["linear"](x)
    with acting(layers, [adapter(1.0, {"linear": a}), adapter(0.5, {"linear": b})]):
        both = layers["linear"](x)
    torch.testing.assert_close(both, plain + 0.5 * x @ (a.up @ a.down).T + 0.5 * x @ (b.up @ b.down).T)
    assert torch.equal(layers["linear"](x), plain)


def test_hooks_go_after_an_error_too(layers: nn.ModuleDict):
    x = torch.randn(3, 6)
    plain = layers["linear"](x)
    with pytest.raises(RuntimeError), acting(layers, [adapter(1.0, {"linear": random_entry()})]):
        raise RuntimeError
    assert torch.equal(layers["linear"](x), plain)


def test_a_module_that_is_not_there_leaves_no_hook(layers: nn.ModuleDict):
    x = torch.randn(3, 6)
    plain = layers["linear"](x)
    entries = {"linear": random_entry(), "nowhere": random_entry()}
    with pytest.raises(KeyError, match="nowhere"), acting(layers, [adapter(1.0, entries)]):
        pass
    assert torch.equal(layers["linear"](x), plain)


def test_a_running_training_is_seen_as_it_is_now(layers: nn.ModuleDict):
    entry, x = random_entry(), torch.randn(3, 6)
    plain = layers["linear"](x)
    with acting(layers, [adapter(1.0, {"linear": entry})]):
        before = layers["linear"](x)
        entry.up.zero_()
        after = layers["linear"](x)
    assert not torch.equal(before, plain) and torch.equal(after, plain)


def test_half_precision_branches_run_in_the_type_of_the_layer(layers: nn.ModuleDict):
    entry, x = random_entry(), torch.randn(3, 6, dtype=torch.bfloat16)
    layers.bfloat16()
    with acting(layers, [adapter(1.0, {"linear": entry})]):
        assert layers["linear"](x).dtype == torch.bfloat16


def test_a_kind_that_is_a_function_of_the_weight_makes_one_for_the_while(layers: nn.ModuleDict):
    linear, x = cast(nn.Linear, layers["linear"]), torch.randn(3, 6)
    shared, plain = linear.weight, linear(x)
    change = ModuleChange((DoRA(LowRank(torch.randn(2, 6), torch.randn(5, 2), None, 1.0), torch.ones(5, 1)),))
    with acting(layers, [Adapter("key", "title", 1.0, {"linear": change})]):
        made = linear.weight
        torch.testing.assert_close(made.norm(dim=1), torch.ones(5))
        torch.testing.assert_close(linear(x), x @ made.T + linear.bias)
    assert linear.weight is shared and torch.equal(linear(x), plain)


def test_kinds_stack_on_one_weight_in_their_order(layers: nn.ModuleDict):
    linear = cast(nn.Linear, layers["linear"])
    low, size = random_entry(), torch.full((5, 1), 2.0)
    change = ModuleChange((DoRA(Difference(torch.zeros(5, 6)), size),))
    merged = linear.weight + 0.5 * 0.7 * low.up @ low.down
    merged = 2.0 * merged / merged.norm(dim=1, keepdim=True)
    adapters = [adapter(0.7, {"linear": low}), Adapter("b", "b", 1.0, {"linear": change})]
    with acting(layers, adapters):
        torch.testing.assert_close(linear.weight, merged)


def test_a_bias_changes_and_one_that_is_missing_is_made():
    layers = nn.ModuleDict({"with": nn.Linear(2, 3), "without": nn.Linear(2, 3, bias=False), "norm": nn.LayerNorm(2)})
    x, change = torch.randn(4, 2), ModuleChange(bias=(Difference(torch.ones(3)),))
    plain = {name: layers[name](x) for name in ("with", "without")}
    norm = ModuleChange((Difference(torch.ones(2)),), (Difference(torch.ones(2)),))
    with acting(layers, [Adapter("a", "a", 0.5, {"with": change, "without": change, "norm": norm})]):
        for name, before in plain.items():
            torch.testing.assert_close(layers[name](x), before + 0.5)
        torch.testing.assert_close(layers["norm"](x), torch.layer_norm(x, (2,)) * 1.5 + 0.5)
    assert torch.equal(layers["without"](x), plain["without"]) and cast(nn.Linear, layers["without"]).bias is None


def test_an_embedding_takes_a_pair_into_a_weight_of_its_own():
    layers = nn.ModuleDict({"tokens": nn.Embedding(4, 6)})
    entry, ids = LoraEntry(torch.randn(2, 6), torch.randn(4, 2)), torch.tensor([1, 3])
    weight = cast(nn.Embedding, layers["tokens"]).weight
    expected = (weight + entry.up @ entry.down)[ids]
    with acting(layers, [adapter(1.0, {"tokens": entry})]):
        torch.testing.assert_close(layers["tokens"](ids), expected)


def test_the_ledger_hears_of_the_weights_that_are_made():
    change = ModuleChange((Difference(torch.ones(5, 6)),))
    acting_ones = [adapter(1.0, {"a": random_entry()}), Adapter("b", "b", 1.0, {"b": change})]
    adapters = [*acting_ones, Adapter("c", "c", 0, {"a": change})]
    assert made_bytes(adapters, {"a": (5, 6), "b": (5, 6)}) == 5 * 6 * 4


def test_a_twin_of_the_module_never_sees_what_acts(layers: nn.ModuleDict):
    loaded = TorchModel(layers)
    twin, x = loaded.twin(), torch.randn(3, 6)
    plain = twin["linear"](x)
    change = ModuleChange((Difference(torch.ones(5, 6)),))
    with acting(layers, [Adapter("b", "b", 1.0, {"linear": change})]):
        assert torch.equal(twin["linear"](x), plain) and not torch.equal(layers["linear"](x), plain)
