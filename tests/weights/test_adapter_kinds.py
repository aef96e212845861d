"""Every kind of adapter from a file to the weight it makes: against peft where it has the kind, else its formula."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from peft.utils.save_and_load import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.weights.adapter_kinds import Difference, DoRA, ModuleChange
from engine.weights.header import read_header
from engine.weights.lora import LoraEntry, LoraFile, LoraOfOtherModel, Piece, UnsupportedAdapter, read_lora

SHAPES: dict[str, tuple[int, ...]] = {"linear": (12, 8), "conv": (6, 4, 3, 3), "norm": (8,)}


def read(tmp_path: Path, tensors: dict[str, Tensor], table: Any = None) -> LoraFile:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "a.safetensors")
    names = table or {f"lora_unet_{m}": m for m in SHAPES} | {f"base_model.model.{m}": m for m in SHAPES}
    return read_lora(read_header(tmp_path / "a.safetensors"), {"denoiser": names}, {"denoiser": SHAPES}, "it", "it")


def changed(lora: LoraFile, module: str, weight: Tensor, strength: float = 1.0) -> Tensor:
    entry = lora.entries["denoiser"][module]
    assert isinstance(entry, ModuleChange)
    for change in entry.weight:
        weight = change.applied(weight, strength)
    return weight


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.conv = nn.Linear(8, 12), nn.Conv2d(4, 6, 3)


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=2, lora_alpha=2, use_dora=True, target_modules=["linear", "conv"]),
        LoHaConfig(r=2, alpha=2, target_modules=["linear", "conv"], use_effective_conv2d=True),
        LoHaConfig(r=2, alpha=2, target_modules=["linear", "conv"]),
        LoKrConfig(r=2, alpha=2, target_modules=["linear", "conv"], use_effective_conv2d=True),
        LoKrConfig(r=1, alpha=1, target_modules=["linear", "conv"], decompose_both=True),
    ],
    ids=["DoRA", "LoHa, Tucker", "LoHa", "LoKr, Tucker", "LoKr of pairs"],
)
def test_a_file_of_peft_makes_the_weight_that_peft_merges(tmp_path: Path, config: Any):
    torch.manual_seed(0)
    layers = Layers()
    weights = {name: getattr(layers, name).weight.detach().clone() for name in ("linear", "conv")}
    model = get_peft_model(layers, config)  # type: ignore[arg-type]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data * 1.5 if "magnitude" in name else torch.randn_like(parameter)
    lora = read(tmp_path, get_peft_model_state_dict(model))
    merged: Any = model.merge_and_unload()  # type: ignore[operator]
    assert not lora.unmatched
    for name, weight in weights.items():
        torch.testing.assert_close(changed(lora, name, weight), getattr(merged, name).weight, atol=1e-5, rtol=1e-5)


def test_alpha_over_rank_scales_every_kind(tmp_path: Path):
    weight = torch.zeros(12, 8)
    parts = {"w1_a": torch.ones(12, 2), "w1_b": torch.ones(2, 8), "w2_a": torch.ones(12, 2), "w2_b": torch.ones(2, 8)}
    loha = {f"lora_unet_linear.hada_{name}": part for name, part in parts.items()}
    lora = read(tmp_path, {**loha, "lora_unet_linear.alpha": torch.tensor(1.0)})
    assert torch.equal(changed(lora, "linear", weight, 0.5), torch.full((12, 8), 0.5 * 0.5 * 4))
    lokr = {"lokr_w1": torch.ones(4, 4), "lokr_w2_a": torch.ones(3, 2), "lokr_w2_b": torch.ones(2, 2)}
    lokr = {f"lora_unet_linear.{name}": part for name, part in lokr.items()}
    lora = read(tmp_path, {**lokr, "lora_unet_linear.alpha": torch.tensor(1.0)})
    assert torch.equal(changed(lora, "linear", weight, 0.5), torch.full((12, 8), 0.5 * 0.5 * 2))


def test_two_whole_factors_of_lokr_carry_their_scale_themselves(tmp_path: Path):
    w1, w2 = torch.randn(4, 4), torch.randn(3, 2)
    tensors = {"lora_unet_linear.lokr_w1": w1, "lora_unet_linear.lokr_w2": w2}
    lora = read(tmp_path, {**tensors, "lora_unet_linear.alpha": torch.tensor(1e9)})
    torch.testing.assert_close(changed(lora, "linear", torch.zeros(12, 8)), torch.kron(w1, w2))


@pytest.mark.parametrize("columns", [False, True])
def test_dora_sets_the_lengths_of_rows_or_of_columns(tmp_path: Path, columns: bool):
    weight, down, up = torch.randn(12, 8), torch.randn(2, 8), torch.randn(12, 2)
    scale = torch.rand(1, 8) if columns else torch.rand(12, 1)
    tensors = {"lora_down.weight": down, "lora_up.weight": up, "dora_scale": scale}
    lora = read(tmp_path, {f"lora_unet_linear.{name}": tensor for name, tensor in tensors.items()})
    merged = weight + up @ down
    merged = merged / merged.norm(dim=0 if columns else 1, keepdim=True) * scale
    torch.testing.assert_close(changed(lora, "linear", weight), merged)
    torch.testing.assert_close(changed(lora, "linear", weight, 0.25), weight + 0.25 * (merged - weight))


@pytest.mark.parametrize(("shape", "scale"), [((1, 8), (1, 8)), ((1, 8), (1, 1)), ((8, 8), (8, 1)), ((8, 8), (1, 8))])
def test_the_scale_of_a_dora_lies_where_its_shape_says(shape: tuple[int, int], scale: tuple[int, int]):
    weight, sizes = torch.randn(shape), torch.rand(scale) + 0.5
    made = DoRA(Difference(torch.randn(shape)), sizes).applied(weight, 1.0)
    torch.testing.assert_close(made.norm(dim=1 if scale[1] == 1 else 0, keepdim=True), sizes)


def test_glora_of_both_versions_takes_the_weight_in(tmp_path: Path):
    weight = torch.randn(12, 8)
    a1, a2, b1, b2 = torch.randn(8, 2), torch.randn(2, 8), torch.randn(12, 2), torch.randn(2, 8)
    merged = weight + 0.5 * (weight @ a1 @ a2 + b1 @ b2)
    for names in (("a1", "a2", "b1", "b2"), ("a2", "a1", "b2", "b1")):  # the second is the old order
        tensors = {f"lora_unet_linear.{n}.weight": t for n, t in zip(names, (a1, a2, b1, b2), strict=True)}
        lora = read(tmp_path, {**tensors, "lora_unet_linear.alpha": torch.tensor(1.0)})
        torch.testing.assert_close(changed(lora, "linear", weight), merged)


def test_oft_turns_groups_of_rows_and_keeps_their_lengths(tmp_path: Path):
    weight, blocks = torch.randn(12, 8), torch.randn(3, 4, 4)
    lora = read(tmp_path, {"lora_unet_linear.oft_blocks": blocks})
    turned = changed(lora, "linear", weight)
    skew, same = blocks - blocks.transpose(1, 2), torch.eye(4)
    for group in range(3):
        turn = (same + skew[group]) @ torch.linalg.inv(same - skew[group])
        torch.testing.assert_close(turned[4 * group : 4 * group + 4], turn.T @ weight[4 * group : 4 * group + 4])
    torch.testing.assert_close(turned.norm(), weight.norm())


def test_oft_is_held_back_by_its_constraint_and_rescaled(tmp_path: Path):
    weight, blocks, rescale = torch.randn(12, 8), torch.randn(3, 4, 4), torch.rand(12, 1)
    tensors = {"oft_blocks": blocks, "alpha": torch.tensor(0.1), "rescale": rescale}
    lora = read(tmp_path, {f"lora_unet_linear.{name}": tensor for name, tensor in tensors.items()})
    skew = blocks - blocks.transpose(1, 2)
    skew = skew * 0.1 / skew.norm()
    turn = torch.block_diag(*((torch.eye(4) + s) @ torch.linalg.inv(torch.eye(4) - s) for s in skew))
    torch.testing.assert_close(changed(lora, "linear", weight), (turn.T @ weight) * rescale)


def test_boft_is_a_product_of_turns_of_other_rows(tmp_path: Path):
    weight, blocks = torch.randn(16, 8), torch.randn(2, 4, 4, 4) * 0.3

    def changed_by(blocks: Tensor, strength: float = 1.0) -> Tensor:
        save_file({"q.oft_blocks": blocks.contiguous()}, tmp_path / "b.safetensors")
        header = read_header(tmp_path / "b.safetensors")
        entry = read_lora(header, {"d": {"q": "big"}}, {"d": {"big": (16, 8)}}, "it", "it").entries["d"]["big"]
        return made(entry, weight, strength)

    torch.testing.assert_close(changed_by(blocks).norm(), weight.norm())
    torch.testing.assert_close(changed_by(blocks, 0.0), weight)
    alone = changed_by(blocks[:1])  # the first factor mixes neighbours: rows 4 to 7 among themselves
    torch.testing.assert_close(alone[4:8].norm(), weight[4:8].norm())
    assert not torch.isclose(changed_by(blocks)[4:8].norm(), weight[4:8].norm())


def test_differences_change_weights_biases_and_norms(tmp_path: Path):
    tensors = {
        "lora_unet_linear.diff": torch.ones(12, 8),
        "lora_unet_linear.diff_b": torch.full((12,), 3.0),
        "lora_unet_norm.w_norm": torch.ones(8),
        "lora_unet_norm.b_norm": torch.full((8,), 2.0),
    }
    lora = read(tmp_path, tensors)
    assert torch.equal(changed(lora, "linear", torch.zeros(12, 8), 0.5), torch.full((12, 8), 0.5))
    for module, bias in (("linear", 3.0), ("norm", 2.0)):
        entry = lora.entries["denoiser"][module]
        assert isinstance(entry, ModuleChange)
        (change,) = entry.bias
        size = SHAPES[module][0]
        assert torch.equal(change.applied(torch.zeros(size), 0.5), torch.full((size,), bias / 2))


def test_a_replacement_stands_whatever_the_strength_is(tmp_path: Path):
    lora = read(tmp_path, {"lora_unet_linear.set_weight": torch.ones(12, 8)})
    assert torch.equal(changed(lora, "linear", torch.zeros(12, 8), 0.1), torch.ones(12, 8))


def test_a_layer_may_get_more_inputs(tmp_path: Path):
    tensors = {
        "lora_unet_linear.reshape_weight": torch.tensor([12, 10]),
        "lora_unet_linear.lora_down.weight": torch.ones(1, 10),
        "lora_unet_linear.lora_up.weight": torch.ones(12, 1),
    }
    grown = changed(read(tmp_path, tensors), "linear", torch.ones(12, 8))
    assert torch.equal(grown, torch.cat([torch.full((12, 8), 2.0), torch.ones(12, 2)], dim=1))


@pytest.mark.parametrize("kind", ["LoRA", "LoHa", "LoKr", "DoRA", "difference", "replacement", "OFT"])
def test_a_module_of_some_rows_gets_its_rows(tmp_path: Path, kind: str):
    """A file made for layers that another layout has as one: 24 rows, of which ours has the first and the last 6."""
    ranges = ((0, 6), (18, 24))
    weight = torch.randn(24, 8)
    pair = {"lora_down.weight": torch.randn(2, 8), "lora_up.weight": torch.randn(24, 2)}
    kinds = {
        "LoRA": pair,
        "LoHa": {f"hada_w{i}_{s}": torch.randn(24, 2) if s == "a" else torch.randn(2, 8) for i in "12" for s in "ab"},
        "LoKr": {"lokr_w1": torch.randn(4, 4), "lokr_w2": torch.randn(6, 2)},
        "DoRA": {**pair, "dora_scale": torch.rand(24, 1)},
        "difference": {"diff": torch.randn(24, 8)},
        "replacement": {"set_weight": torch.randn(24, 8)},
        "OFT": {"oft_blocks": torch.randn(8, 3, 3), "rescale": torch.rand(24, 1), "alpha": torch.tensor(0.5)},
    }
    tensors = {f"q.{name}": tensor for name, tensor in kinds[kind].items()}
    save_file(tensors, tmp_path / "a.safetensors")
    header = read_header(tmp_path / "a.safetensors")
    whole = read_lora(header, {"d": {"q": "all"}}, {"d": {"all": (24, 8)}}, "it", "it").entries["d"]["all"]
    table = {"d": {"q": (Piece("some", ranges),)}}
    part = read_lora(header, table, {"d": {"some": (12, 8)}}, "it", "it").entries["d"]["some"]
    rows = torch.cat([weight[:6], weight[18:]])
    expected = made(whole, weight)
    torch.testing.assert_close(made(part, rows), torch.cat([expected[:6], expected[18:]]))


def made(entry: LoraEntry | ModuleChange, weight: Tensor, strength: float = 1.0) -> Tensor:
    if isinstance(entry, LoraEntry):
        return weight + strength * entry.scale * entry.up @ entry.down
    for change in entry.weight:
        weight = change.applied(weight, strength)
    return weight


def test_what_ties_rows_together_cannot_be_taken_apart(tmp_path: Path):
    save_file({"q.oft_blocks": torch.zeros(3, 8, 8)}, tmp_path / "a.safetensors")
    header = read_header(tmp_path / "a.safetensors")
    with pytest.raises(UnsupportedAdapter, match="OFT"):
        read_lora(
            header,
            {"d": {"q": (Piece("some", ((0, 12),)), Piece("rest", ((12, 24),)))}},
            {"d": {"some": (12, 8)}},
            "it",
            "it",
        )


@pytest.mark.parametrize(
    "tensors",
    [
        {"hada_w1_a": (12, 2), "hada_w1_b": (2, 8)},
        {"hada_w1_a": (12, 2), "hada_w1_b": (2, 8), "hada_w2_a": (12, 2), "hada_w2_b": (2, 9)},
        {"hada_w1_a": (12,), "hada_w1_b": (2, 8), "hada_w2_a": (12, 2), "hada_w2_b": (2, 8)},
        {"lokr_w1": (4, 4)},
        {"lokr_w1": (4, 4), "lokr_w2": (3, 3)},
        {"lokr_w1": (4, 4), "lokr_w2_a": (3, 2)},
        {"a1.weight": (8, 2), "a2.weight": (2, 8), "b1.weight": (12, 2)},
        {"a1.weight": (9, 2), "a2.weight": (2, 9), "b1.weight": (12, 2), "b2.weight": (2, 9)},
        {"oft_blocks": (5, 4, 4)},
        {"diff": (12, 7)},
        {"diff_b": (8,)},
        {"set_weight": (1,)},
        {"lora_down.weight": (2,), "lora_up.weight": (12, 2)},
        {"lora_down.weight": (0, 8), "lora_up.weight": (12, 0), "alpha": ()},
    ],
)
def test_matrices_that_do_not_fit_are_refused(tmp_path: Path, tensors: dict[str, tuple[int, ...]]):
    with pytest.raises(LoraOfOtherModel):
        read(tmp_path, {f"lora_unet_linear.{name}": torch.ones(shape) for name, shape in tensors.items()})
