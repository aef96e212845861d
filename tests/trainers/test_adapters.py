import pytest
import torch
from torch import nn

from engine.models.loaded import TorchModel
from engine.models.manager import ModelRef
from trainers.adapters import inject, live_entries

REF = ModelRef("k", "denoiser", "t")


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.inner = nn.ModuleDict({"conv": nn.Conv2d(4, 4, 1), "drop": nn.Dropout(0.5)})
        self.out = nn.Linear(4, 2)

    def forward(self, x):
        return self.out(self.inner["drop"](self.inner["conv"](self.conv(x))).mean((2, 3)))


@pytest.fixture
def base():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TorchModel(Base())


def part_of(base, seed=0, targets=("conv", "out")):
    return inject("denoiser", REF, base.twin(), targets, rank=2, alpha=4.0, seed=seed)


def test_adapters_lie_on_a_twin_and_the_shared_base_stays_as_it_was(base):
    names, modes = [n for n, _ in base.value.named_modules()], [m.training for m in base.value.modules()]
    part = part_of(base)
    assert [n for n, _ in base.value.named_modules()] == names
    assert [m.training for m in base.value.modules()] == modes
    assert not any(p.requires_grad for p in base.value.parameters())
    assert part.twin.conv.base_layer.weight is base.value.conv.weight
    assert {id(p) for p in part.parameters()} == {id(p) for p in part.twin.parameters() if p.requires_grad}


def test_only_modules_of_exactly_these_names_get_adapters(base):
    assert set(part_of(base).layers) == {"conv", "out"}, "inner.conv ends in the same word"


def test_fresh_adapters_change_nothing_and_depend_on_the_seed_alone(base):
    x, state = torch.ones(1, 3, 4, 4), torch.get_rng_state()
    one, other, third = part_of(base), part_of(base), part_of(base, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.twin(x), base.value(x))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not torch.equal(one.parameters()[0], third.parameters()[0])


def test_dropout_of_a_twin_in_train_mode_is_silent(base):
    part = part_of(base)
    x = torch.ones(1, 3, 4, 4)
    assert torch.equal(part.twin.train()(x), part.twin.eval()(x))
    assert base.value.inner["drop"].p == 0.5


def test_a_base_read_anew_is_used_after_rebinding(base):
    part = part_of(base)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        again = TorchModel(Base())
    part.rebind(again.value)
    assert part.twin.conv.base_layer.weight is again.value.conv.weight
    assert part.twin.inner["conv"].weight is again.value.inner["conv"].weight
    assert part.twin.inner["conv"].bias is again.value.inner["conv"].bias


def test_live_entries_are_the_training_s_own_tensors(base):
    part = part_of(base)
    entry = live_entries([part], 4.0)["denoiser"]["conv"]
    with torch.no_grad():
        part.parameters()[1].fill_(7.0)
    assert entry.up.unique().tolist() == [7.0] and entry.scale == 2.0
