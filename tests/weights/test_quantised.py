"""Which quantised layouts are read, and that the others are named."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.weights.header import read_header
from engine.weights.load import read_tensors
from engine.weights.quantised import UnknownQuantisation, settled

FP8 = torch.ones(4, 4).to(torch.float8_e4m3fn)
MARK = torch.tensor(list(json.dumps({"format": "float8_e4m3fn"}).encode()), dtype=torch.uint8)


def names(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> set[str]:
    save_file(tensors, path / "a.safetensors", metadata)
    return set(settled(read_header(path / "a.safetensors")).tensors)


def test_scaled_fp8_files_have_a_scale_a_layer(tmp_path: Path):
    tensors = {"scaled_fp8": torch.empty(2, dtype=torch.float8_e4m3fn), "a.weight": FP8, "a.bias": torch.ones(4),
               "a.scale_weight": torch.tensor(0.5), "a.scale_input": torch.tensor(1.0)}  # fmt: skip
    assert names(tmp_path, tensors) == {"a.weight", "a.bias", "a.weight_scale"}
    header = settled(read_header(tmp_path / "a.safetensors"))
    assert read_tensors(header, ["a.weight_scale"])["a.weight_scale"] == 0.5


def test_comfy_quant_files_mark_their_layers_or_the_file(tmp_path: Path):
    tensors = {"a.weight": FP8, "a.weight_scale": torch.tensor(0.5), "a.input_scale": torch.tensor(1.0)}
    assert names(tmp_path, {**tensors, "a.comfy_quant": MARK}) == {"a.weight", "a.weight_scale"}
    about = {"format_version": "1.0", "layers": {"a": {"format": "float8_e4m3fn"}}}
    assert names(tmp_path, tensors, {"_quantization_metadata": json.dumps(about)}) == {"a.weight", "a.weight_scale"}


@pytest.mark.parametrize("kind", ["nvfp4", "int8_tensorwise", "mxfp8"])
def test_an_unknown_format_is_refused_by_its_name(tmp_path: Path, kind: str):
    mark = torch.tensor(list(json.dumps({"format": kind}).encode()), dtype=torch.uint8)
    with pytest.raises(UnknownQuantisation, match=kind):
        names(tmp_path, {"a.weight": FP8, "a.comfy_quant": mark})
    about = {"layers": {"b": {"format": kind}}}
    with pytest.raises(UnknownQuantisation, match=f"'b' is quantised as {kind}"):
        names(tmp_path, {"a.weight": FP8}, {"_quantization_metadata": json.dumps(about)})


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.weight.quant_state.bitsandbytes__nf4", "bitsandbytes nf4"),
        ("a.qweight", "nunchaku"),
        ("a.weight_scale_2", "nvfp4"),
        ("a.weight", "int8"),
    ],
)
def test_layouts_of_others_are_refused_by_their_name(tmp_path: Path, name: str, kind: str):
    with pytest.raises(UnknownQuantisation, match=kind):
        names(tmp_path, {name: torch.ones(4, 4, dtype=torch.int8)})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"layers": 3}', '{"layers": {"a": 1}}'])
def test_broken_metadata_is_refused(tmp_path: Path, text: str):
    with pytest.raises(UnknownQuantisation):
        names(tmp_path, {"a.weight": FP8}, {"_quantization_metadata": text})
