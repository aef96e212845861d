"""GGUF files, written by the gguf package and read by us."""

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf.constants import GGMLQuantizationType as Type

from engine.families.parts.layers import gguf_numbers
from engine.weights.gguf import NotGguf, is_gguf
from engine.weights.header import Truncated, read_header
from engine.weights.load import read_tensors
from engine.weights.quantised import GGUF_TYPES

# a row has to be a whole number of the longest blocks, which are of 256
MATRIX = np.random.default_rng(0).standard_normal((6, 512)).astype(np.float32)


def write(path: Path, tensors: dict[str, tuple[np.ndarray, Type | None]], arch: str = "flux") -> Path:
    writer = gguf.GGUFWriter(path, arch)
    writer.add_array("comfy.gguf.orig_shape.conv.weight", [3, 4, 2, 2])
    writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
    for name, (data, kind) in tensors.items():
        if kind is None:
            writer.add_tensor(name, data)
        else:
            writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_header_tells_types_and_shapes(tmp_path: Path):
    path = write(tmp_path / "a.gguf", {"a.weight": (MATRIX, Type.Q8_0), "b.weight": (MATRIX.astype(np.float16), None),
                                       "conv.weight": (MATRIX[:1, :48], None)})  # fmt: skip
    header = read_header(path)
    assert (header.format, is_gguf(path), header.metadata["general.architecture"]) == ("gguf", True, "flux")
    assert {n: (t.dtype, t.shape) for n, t in header.tensors.items()} == {
        "a.weight": ("Q8_0", (6, 512)), "b.weight": ("F16", (6, 512)), "conv.weight": ("F32", (3, 4, 2, 2)),
    }  # fmt: skip
    assert "tokenizer.ggml.tokens" not in header.metadata
    tensors = read_tensors(header, dtype=torch.float32)
    assert torch.equal(tensors["b.weight"], torch.from_numpy(MATRIX).half().float())
    assert tensors["a.weight"].shape == (6, 512 // 32 * 34) and tensors["a.weight"].dtype == torch.uint8


@pytest.mark.parametrize("kind", GGUF_TYPES)
def test_blocks_are_unpacked_as_gguf_unpacks_them(kind: str):
    block, size = gguf.GGML_QUANT_SIZES[Type[kind]]
    blocks = np.random.default_rng(1).integers(0, 256, (6 * 512 // block, size), dtype=np.uint8)
    for at in _scales_at(kind, size):  # any bytes will do but for float16 scales, which may be no numbers
        blocks[:, at : at + 2] = np.frombuffer(np.float16(0.013).tobytes(), np.uint8)
    rows = blocks.reshape(6, -1)
    ours = gguf_numbers(torch.from_numpy(rows), kind, torch.float32)
    assert ours.shape == (6, 512)
    np.testing.assert_allclose(ours.numpy(), gguf.quants.dequantize(rows, Type[kind]), rtol=1e-6, atol=1e-6)


def _scales_at(kind: str, size: int) -> tuple[int, ...]:
    """Where the blocks of llama.cpp have their float16 scales."""
    last = {"Q2_K": (size - 4, size - 2), "Q3_K": (size - 2,), "Q6_K": (size - 2,)}
    return last.get(kind, (0, 2) if kind in ("Q4_1", "Q5_1", "Q4_K", "Q5_K") else (0,))


def test_broken_files_say_what_is_wrong(tmp_path: Path):
    good = write(tmp_path / "a.gguf", {"a.weight": (MATRIX, Type.Q8_0)}).read_bytes()
    for name, data, error in (
        ("cut", good[:-100], Truncated),
        ("header", good[:60], NotGguf),
        ("version", good[:4] + struct.pack("<I", 99) + good[8:], NotGguf),
        ("long", good[:24] + struct.pack("<Q", 1 << 60) + good[32:], NotGguf),
        ("type", good.replace(struct.pack("<QI", 6, int(Type.Q8_0)), struct.pack("<QI", 6, 9999)), NotGguf),
    ):
        (tmp_path / f"{name}.gguf").write_bytes(data)
        with pytest.raises(error, match=name):
            read_header(tmp_path / f"{name}.gguf")
