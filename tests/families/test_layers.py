"""Layers that keep their weights as stored."""

import copy

import gguf
import pytest
import torch
from gguf.constants import GGMLQuantizationType as Type
from torch import nn

from engine.families.parts.layers import (
    Storage,
    StoredEmbedding,
    StoredLinear,
    can_keep,
    keep_stored,
    stored_layers,
    unpacked,
)
from engine.models.device import FakeDevice
from engine.models.loaded import TorchModel


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 32)
        self.linear = nn.Linear(32, 8)
        self.conv = nn.Conv2d(8, 4, 3, padding=1, stride=2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.linear(self.table(ids)).movedim(-1, 1)
        return self.conv(x[..., None].expand(-1, -1, -1, 4))


def kept(net: nn.Module, storage: Storage, tensors: dict[str, torch.Tensor]) -> nn.Module:
    with torch.device("meta"):
        skeleton = Net()
    layers = [name for name, layer in skeleton.named_modules() if can_keep(layer)]
    keep_stored(skeleton, dict.fromkeys(layers, storage))
    skeleton.load_state_dict({**net.state_dict(), **tensors}, assign=True)
    return skeleton.requires_grad_(False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_layers_give_what_their_rounded_weights_give(dtype: torch.dtype):
    net, ids = Net(), torch.tensor([[1, 2, 3, 4]])
    weights = {name: t.to(dtype) for name, t in net.state_dict().items() if name.endswith("weight")}
    ours = kept(net, Storage(dtype), weights)
    net.load_state_dict({**net.state_dict(), **{name: t.float() for name, t in weights.items()}})
    assert torch.equal(ours(ids), net(ids))
    assert {layer.weight.dtype for _, layer in stored_layers(ours)} == {dtype}


def test_a_scale_multiplies_the_weight_of_a_layer_of_each_row_or_of_each_block():
    net, ids = Net(), torch.tensor([[1, 2, 3, 4]])
    blocks = torch.linspace(0.5, 2, 32).view(8, 4, 1)  # four to a row, as kohya's files have it
    for scale in (torch.tensor(0.5), torch.tensor([0.25]), torch.linspace(0.5, 2, 8)[:, None], blocks):
        layer = StoredLinear(32, 8)
        layer.load_state_dict(net.linear.state_dict())
        layer.storage, layer.weight_scale = Storage(torch.float32), scale
        plain = copy.deepcopy(net.linear)
        each = scale.view(8, 4).repeat_interleave(8, dim=1) if scale is blocks else scale
        plain.weight.data = plain.weight * each
        torch.testing.assert_close(layer(net.table(ids)), plain(net.table(ids)))


def test_rows_of_a_table_have_scales_of_their_own():
    net, ids = Net(), torch.tensor([[1, 2, 3, 4]])
    ours = kept(net, Storage(torch.float32), {})
    assert isinstance(ours, Net) and isinstance(ours.table, StoredEmbedding)
    ours.table.weight_scale = scale = torch.linspace(0.5, 2, 10)[:, None]
    torch.testing.assert_close(ours.table(ids), net.table(ids) * scale[ids[0]])


def test_rows_of_gguf_are_looked_up_and_multiplied():
    net, ids = Net(), torch.tensor([[1, 2, 3, 4]])
    packed, numbers = {}, {}
    for name in ("table.weight", "linear.weight"):
        rows = gguf.quants.quantize(net.state_dict()[name].numpy(), Type.Q8_0)
        packed[name], numbers[name] = torch.from_numpy(rows), torch.from_numpy(gguf.quants.dequantize(rows, Type.Q8_0))
    with torch.device("meta"):
        ours = Net()
    keep_stored(ours, {"table": Storage(gguf="Q8_0"), "linear": Storage(gguf="Q8_0")})
    ours.load_state_dict({**net.state_dict(), **packed}, assign=True)
    net.load_state_dict({**net.state_dict(), **numbers})
    torch.testing.assert_close(ours(ids), net(ids))
    assert isinstance(ours.linear, StoredLinear) and unpacked(ours.linear, torch.float32).shape == (8, 32)


def test_gradients_pass_through_and_nothing_unpacked_is_kept_for_them():
    net = Net()
    layer = kept(
        net, Storage(torch.float16), {n: t.half() for n, t in net.state_dict().items() if "weight" in n}
    ).linear
    x = torch.randn(5, 32, requires_grad=True)
    plain = net.linear
    plain.weight.data = plain.weight.half().float()
    saved: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        out = layer(x)
    assert not [t for t in saved if t.shape == (8, 32)]
    (ours,) = torch.autograd.grad(out.square().sum(), x)
    (theirs,) = torch.autograd.grad(plain(x).square().sum(), x)
    torch.testing.assert_close(ours, theirs)


def test_a_stored_model_goes_to_a_device_and_comes_back():
    net, ids = Net(), torch.tensor([[1, 2, 3, 4]])
    weights = {name: t.to(torch.float8_e4m3fn) for name, t in net.state_dict().items() if name.endswith("weight")}
    model, device = TorchModel(kept(net, Storage(torch.float8_e4m3fn), weights)), FakeDevice(1 << 20)
    before = model.value(ids)
    model.place(device)
    assert device.used == model.nbytes == sum(t.nbytes for t in {**net.state_dict(), **weights}.values())
    assert torch.equal(model.value(ids), before) and torch.equal(model.twin()(ids), before)
    model.take_off(device)
    assert device.used == 0 and torch.equal(model.value(ids), before)


def test_other_layers_are_refused():
    with torch.device("meta"):
        net = nn.ModuleDict({"norm": nn.LayerNorm(4)})
    assert not can_keep(net["norm"])
    with pytest.raises(TypeError, match="LayerNorm"):
        keep_stored(net, {"norm": Storage(torch.float16)})
