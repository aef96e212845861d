import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from engine.weights import load
from engine.weights.header import PickleFile, Truncated, read_header
from engine.weights.load import BadPickle, open_header, read_tensors


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "half": torch.randn(7, 5, generator=generator).half(),
        "brain": torch.randn(3, 1000, generator=generator).bfloat16(),
        "float": torch.randn(2, 3, 4, generator=generator),
        "whole": torch.arange(6).reshape(2, 3),
        "scalar": torch.tensor(2.5),
        "none": torch.zeros(0, 4),
    }


def test_tensors_are_cast_while_they_are_read(tmp_path: Path, tensors):
    save_file(tensors, tmp_path / "a.safetensors")
    out = read_tensors(read_header(tmp_path / "a.safetensors"), dtype=torch.float32)
    for name, tensor in tensors.items():
        expected = tensor.float() if tensor.is_floating_point() else tensor
        assert out[name].dtype == expected.dtype and torch.equal(out[name], expected), name


def test_tensors_keep_their_type_when_none_is_asked_for(tmp_path: Path, tensors):
    save_file(tensors, tmp_path / "a.safetensors")
    out = read_tensors(read_header(tmp_path / "a.safetensors"), ["half", "brain"])
    assert set(out) == {"half", "brain"}
    assert torch.equal(out["half"], tensors["half"]) and torch.equal(out["brain"], tensors["brain"])


@pytest.mark.parametrize("threads", [1, 3])
def test_tensors_longer_than_a_piece_are_whole(tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(load, "PIECE", 64)
    tensors = {f"t{i}": torch.randn(50 + i).half() for i in range(20)}
    save_file(tensors, tmp_path / "a.safetensors")
    out = read_tensors(read_header(tmp_path / "a.safetensors"), dtype=torch.float32, threads=threads)
    assert all(torch.equal(out[name], tensor.float()) for name, tensor in tensors.items())


def test_what_was_read_does_not_depend_on_the_file(tmp_path: Path, tensors):
    path = tmp_path / "a.safetensors"
    save_file(tensors, path)
    out = read_tensors(read_header(path))
    path.write_bytes(b"\xff" * path.stat().st_size)
    assert torch.equal(out["float"], tensors["float"])


def test_a_file_cut_after_its_header_was_read_is_truncated(tmp_path: Path, tensors):
    path = tmp_path / "a.safetensors"
    save_file(tensors, path)
    header = read_header(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(Truncated):
        read_tensors(header)


def test_a_pickle_is_read_only_where_it_is_allowed(tmp_path: Path):
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": {"w": torch.ones(2, 2).half()}, "epoch": 3}, path)
    with pytest.raises(PickleFile):
        open_header(path)
    header = open_header(path, allow_pickle=True)
    assert {name: (t.dtype, t.shape) for name, t in header.tensors.items()} == {"w": ("F16", (2, 2))}
    assert torch.equal(read_tensors(header, dtype=torch.float32)["w"], torch.ones(2, 2))


class Evil:
    def __reduce__(self):
        return print, ("this must never be printed",)


def test_a_pickle_with_code_is_refused_even_where_pickles_are_allowed(tmp_path: Path, capsys):
    torch.save({"w": torch.ones(1), "x": Evil()}, tmp_path / "a.ckpt")
    with pytest.raises(BadPickle):
        open_header(tmp_path / "a.ckpt", allow_pickle=True)
    assert capsys.readouterr().out == ""


def test_a_broken_pickle_says_so(tmp_path: Path):
    path = tmp_path / "a.ckpt"
    torch.save({"w": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(BadPickle):
        open_header(path, allow_pickle=True)


def test_what_lightning_left_in_a_checkpoint_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As the first files of Stable Diffusion: a callback's state under its class, its best score in numpy's type."""
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    callback = type("ModelCheckpoint", (), {"__module__": module.__name__})
    module.ModelCheckpoint = callback  # type: ignore[attr-defined]
    for name in ("pytorch_lightning", "pytorch_lightning.callbacks"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    score = {"best": np.float64(0.25), "monitor": "val/loss"}
    state = {"a.weight": torch.ones(2, 2)}
    torch.save({"state_dict": state, "callbacks": {callback: score}, "epoch": 3}, tmp_path / "v1.ckpt")
    monkeypatch.undo()
    header = open_header(tmp_path / "v1.ckpt", allow_pickle=True)
    assert list(header.tensors) == ["a.weight"]
    assert torch.equal(read_tensors(header)["a.weight"], torch.ones(2, 2))
