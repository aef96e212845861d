from typing import cast

import pytest
import torch
from torch import nn

from engine.families.base import Adapter
from engine.families.parts.adapters import acting
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
