import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import FileError, NotFound
from engine.weights.header import EmptyFile, NotSafetensors, PickleFile, Truncated, read_folder, read_header
from engine.weights.identify import identify
from tests.weights.files import empty_tensors, with_header

GOOD = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def test_a_header_tells_names_types_shapes_and_metadata(tmp_path: Path):
    header = read_header(empty_tensors(tmp_path / "a.safetensors", {"x": (2, 3), "y": ()}, {"modelspec.title": "A"}))
    assert {name: (t.dtype, t.shape) for name, t in header.tensors.items()} == {"x": ("F32", (2, 3)), "y": ("F32", ())}
    assert header.metadata == {"modelspec.title": "A"}
    assert header.under("x") == {"": header.tensors["x"]}


def test_the_digest_changes_with_the_file(tmp_path: Path):
    path = empty_tensors(tmp_path / "a.safetensors", {"x": (2,)})
    first = read_header(path).digest
    assert read_header(path).digest == first
    empty_tensors(path, {"x": (3,)})
    assert read_header(path).digest != first


def test_a_file_of_no_bytes_is_empty(tmp_path: Path):
    (tmp_path / "a.safetensors").touch()
    with pytest.raises(EmptyFile, match="0 bytes"):
        read_header(tmp_path / "a.safetensors")


def test_a_missing_file_is_not_found(tmp_path: Path):
    with pytest.raises(NotFound):
        read_header(tmp_path / "a.safetensors")
    with pytest.raises(NotFound):
        read_header(tmp_path)


@pytest.mark.parametrize("kept", [4, 20, -1])
def test_a_cut_file_is_truncated_wherever_it_was_cut(tmp_path: Path, kept: int):
    path = empty_tensors(tmp_path / "a.safetensors", {"x": (100,)})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(Truncated):
        read_header(path)


def test_a_text_file_renamed_is_told_by_its_first_words(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    path.write_text("<!DOCTYPE html><html>not a model</html>")
    with pytest.raises(NotSafetensors, match="<!DOCTYP"):
        read_header(path)


@pytest.mark.parametrize("make", [lambda path: torch.save({"a": torch.zeros(1)}, path),
                                  lambda path: path.write_bytes(pickle.dumps({"a": 1}))])  # fmt: skip
def test_a_pickle_is_refused(tmp_path: Path, make):
    make(tmp_path / "a.safetensors")
    with pytest.raises(PickleFile, match="pickle"):
        read_header(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "header",
    [
        b"not json at all",
        b'{"a": ',
        [1, 2],
        {"__metadata__": [1]},
        {"a": 3},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}},
        {"a": {"dtype": "F32", "shape": ["2"], "data_offsets": [0, 8]}},
        {"a": {"dtype": "NOPE", "shape": [2], "data_offsets": [0, 8]}},
        {"a": {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]}},
    ],
)
def test_a_wrong_header_is_refused(tmp_path: Path, header):
    with pytest.raises(NotSafetensors):
        read_header(with_header(tmp_path / "a.safetensors", header, bytes(8)))


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_a_header_or_an_error_with_words(tmp_path: Path, data: bytes, framed: bool):
    path = tmp_path / "any.safetensors"
    path.write_bytes(len(data).to_bytes(8, "little") + data if framed else data)
    try:
        identify(read_header(path))
    except FileError as error:
        assert str(path) in error.text("en") and str(path) in error.text("zh")


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda inner: st.lists(inner)
                    | st.dictionaries(st.sampled_from(["a", "dtype", "shape", "data_offsets", "__metadata__", "F32"]),
                                      inner)))  # fmt: skip
def test_any_json_is_a_header_or_an_error_with_words(tmp_path: Path, header):
    try:
        identify(read_header(with_header(tmp_path / "any.safetensors", header, bytes(16))))
    except FileError as error:
        assert "any.safetensors" in error.text("zh")


def test_an_absurd_header_length_is_not_read(tmp_path: Path):
    path = with_header(tmp_path / "a.safetensors", GOOD, bytes(8), length=1 << 62)
    with pytest.raises(NotSafetensors, match="bytes"):
        read_header(path)


def test_errors_speak_chinese(tmp_path: Path):
    path = tmp_path / "空.safetensors"
    path.touch()
    with pytest.raises(FileError) as caught:
        read_header(path)
    assert "空文件" in caught.value.text("zh")


def test_a_folder_is_one_header_with_its_configs_as_metadata(tmp_path: Path):
    for part in ("unet", "vae", "text_encoder"):
        (tmp_path / part).mkdir()
        empty_tensors(tmp_path / part / "model.safetensors", {"w": (1,)})
        empty_tensors(tmp_path / part / "model.fp16.safetensors", {"w": (2,)})
    (tmp_path / "unet" / "config.json").write_text('{"layers_per_block": 2}')
    header = read_folder(tmp_path)
    assert {name: t.shape for name, t in header.tensors.items()} == dict.fromkeys(
        ("unet.w", "vae.w", "text_encoder.w"), (1,)
    )
    assert header.metadata == {"easel.unet": '{"layers_per_block": 2}'}


@pytest.mark.parametrize(
    "names",
    [
        ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
        ("model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"),
        ("model-00001-of-00002.fp16.safetensors", "model-00002-of-00002.fp16.safetensors"),
    ],
)
def test_all_shards_of_one_variant_are_read(tmp_path: Path, names: tuple[str, str]):
    """And nothing else that lies there: another variant, a LoRA."""
    folder = tmp_path / "transformer"
    folder.mkdir()
    for number, name in enumerate(names):
        empty_tensors(folder / name, {f"w{number}": (1,)})
    empty_tensors(folder / "model.non_ema.safetensors", {"w0": (2,), "x": (2,)})
    empty_tensors(folder / "pytorch_lora_weights.non_ema.safetensors", {"y": (2,)})
    header = read_folder(tmp_path)
    assert {name: t.shape for name, t in header.tensors.items()} == {"transformer.w0": (1,), "transformer.w1": (1,)}


def test_a_whole_file_goes_before_shards(tmp_path: Path):
    (tmp_path / "unet").mkdir()
    for name in ("diffusion_pytorch_model-00001-of-00002", "lora", "diffusion_pytorch_model"):
        empty_tensors(tmp_path / "unet" / f"{name}.safetensors", {name: (1,)})
    assert list(read_folder(tmp_path).tensors) == ["unet.diffusion_pytorch_model"]


def test_a_folder_without_weights_is_not_found(tmp_path: Path):
    with pytest.raises(NotFound, match="unet"):
        read_folder(tmp_path)
