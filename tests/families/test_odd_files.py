"""Files as people have them: every family in every type, quantised ones among them; cut, incomplete, misshapen ones;
relatives that are not run here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from gguf.constants import GGMLQuantizationType as Type
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.families.base import Components, TextBatch
from engine.families.discover import UnknownFamily, detect_denoiser, family_of, family_of_denoiser
from engine.families.parts.filling import MissingWeights, WrongShape
from engine.models.device import open_device
from engine.models.manager import ModelManager
from engine.weights import keymaps
from engine.weights.header import PickleFile, Truncated, read_header
from engine.weights.keymaps import UnknownLayout
from engine.weights.load import open_header
from tests.families.tiny import make_tiny_sd1
from tests.families.tiny_dit import SD3_TEXT, SD35, make_flux_checkpoint, make_sd3_checkpoint
from tests.families.tiny_unets import REFINER, SD2, SDXL, make_tiny, told_in_metadata, unet_config

pytestmark = pytest.mark.slow  # a minute: six families in eight types

MAKERS: dict[str, Callable[[Path], Path]] = {
    "sd1": make_tiny_sd1,
    "sd2": lambda path: make_tiny(path, SD2),
    "sdxl": lambda path: make_tiny(path, SDXL),
    "sdxl_refiner": lambda path: make_tiny(path, REFINER),
    "sd3": lambda path: make_sd3_checkpoint(path, SD35),
    "flux": make_flux_checkpoint,
}
WIDTHS = {
    "sd1": (32, 0),
    "sd2": (32, 0),
    "sdxl": (48, 32),
    "sdxl_refiner": (32, 32),
    "sd3": (SD3_TEXT, 64),
    "flux": (48, 24),
}
DENOISER = "model.diffusion_model."


@pytest.fixture
def manager() -> ModelManager:
    return ModelManager(open_device("cpu"))


@pytest.fixture(scope="module", params=MAKERS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    path = tmp_path_factory.mktemp("made") / f"{request.param}.safetensors"
    MAKERS[request.param](path)
    return request.param, path


def load(manager: ModelManager, path: Path) -> Components:
    header = open_header(path, allow_pickle=True)
    return family_of(header).load_checkpoint(manager, path, allow_pickle=True)


def predicted(manager: ModelManager, family: str, parts: Components) -> Tensor:
    width, pooled = WIDTHS[family]
    generator = torch.Generator().manual_seed(0)
    channels = parts.model.latent.channels
    x = torch.randn(1, channels, 8, 8, generator=generator)
    cross, told = torch.randn(1, 7, width, generator=generator), torch.randn(1, pooled, generator=generator)
    kind, model = parts.model.family, parts.model
    extra = kind.extra_conditions(model, told, {}, x)
    t = torch.tensor([0.7 if family == "flux" else 700.0])
    with manager.lease(model.ref) as leased, torch.no_grad():
        return kind.predict(leased[model.ref], x, t, TextBatch(cross, told, extra))


def matrices(tensors: dict[str, Tensor]) -> list[str]:
    """Of the denoiser: what programs quantise."""
    return [n for n, t in tensors.items() if n.startswith(DENOISER) and n.endswith(".weight") and t.ndim == 2]


def plain(tensors: dict[str, Tensor], dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(everything in that type, the same values in float32)"""
    cast = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    return cast, {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in cast.items()}


def scaled(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """As `scaled_fp8` files have it: a scale beside each matrix, and an empty tensor that marks the file."""
    cast = {name: tensor.half() for name, tensor in tensors.items()}
    same = {name: tensor.float() for name, tensor in cast.items()}
    for name in matrices(tensors):
        scale = tensors[name].float().abs().max() / 448
        cast[name] = (tensors[name].float() / scale).to(torch.float8_e4m3fn)
        cast[name.removesuffix("weight") + "scale_weight"] = scale
        same[name] = cast[name].float() * scale
    cast[DENOISER + "scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    return cast, same


TYPES: dict[str, Callable[[dict[str, Tensor]], tuple[dict[str, Tensor], dict[str, Tensor]]]] = {
    "float16": lambda tensors: plain(tensors, torch.float16),
    "bfloat16": lambda tensors: plain(tensors, torch.bfloat16),
    "float8_e4m3fn": lambda tensors: plain(tensors, torch.float8_e4m3fn),
    "float8_e5m2": lambda tensors: plain(tensors, torch.float8_e5m2),
    "scaled": scaled,
}


@pytest.mark.parametrize("kind", TYPES)
def test_every_family_reads_every_type(tmp_path: Path, manager: ModelManager, made: tuple[str, Path], kind: str):
    """A file gives what one with the same values in float32 gives."""
    family, path = made
    words = dict(read_header(path).metadata)
    stored, same = TYPES[kind](load_file(path))
    for name, tensors in (("stored", stored), ("same", same)):
        save_file({n: t.contiguous() for n, t in tensors.items()}, tmp_path / f"{name}.safetensors", words)
    ours = predicted(manager, family, load(manager, tmp_path / "stored.safetensors"))
    theirs = predicted(manager, family, load(manager, tmp_path / "same.safetensors"))
    assert torch.isfinite(theirs).all()
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def begin(path: Path, family: str, words: dict[str, str]) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(path, family)
    for key, value in words.items():
        writer.add_string(key, value)
    return writer


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("kind", [Type.Q8_0, Type.Q5_1, Type.Q4_0])
def test_every_denoiser_comes_from_gguf(tmp_path: Path, manager: ModelManager, made: tuple[str, Path], kind: Type):
    """The denoiser alone, in the makers' names, its matrices in blocks of 32 where they have such rows."""
    family, path = made
    words = dict(read_header(path).metadata)
    numbers = {n.removeprefix(DENOISER): t.float() for n, t in load_file(path).items() if n.startswith(DENOISER)}
    writer, blocks = begin(tmp_path / "small.gguf", family, words), 0
    for name, tensor in numbers.items():
        if tensor.ndim == 2 and tensor.shape[1] % 32 == 0:
            rows = gguf.quants.quantize(tensor.numpy(), kind)
            writer.add_tensor(name, rows, raw_dtype=kind)
            numbers[name] = torch.from_numpy(gguf.quants.dequantize(rows, kind))
            blocks += 1
        else:
            writer.add_tensor(name, tensor.numpy())
    finish(writer)
    save_file({n: t.contiguous() for n, t in numbers.items()}, tmp_path / "whole.safetensors", words)
    models = []
    for name in ("small.gguf", "whole.safetensors"):
        found = family_of_denoiser(read_header(tmp_path / name))
        models.append(found.load_denoiser(manager, tmp_path / name))
    assert blocks and {model.family.spec.name for model in models} == {family}
    parts = load(manager, path)
    ours, theirs = (predicted(manager, family, replace(parts, model=model)) for model in models)
    assert not torch.equal(theirs, predicted(manager, family, parts))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [Type.Q8_0, Type.Q4_0])
def test_unets_come_from_gguf_as_city96s_converter_cuts_them(
    tmp_path: Path, manager: ModelManager, made: tuple[str, Path], kind: Type
):
    """What has 256 n numbers, but not in rows of 256, lies there in rows of 256; convolutions as well."""
    family, path = made
    if family in ("flux", "sd3"):
        pytest.skip("the converter cuts UNets alone")
    words = dict(read_header(path).metadata)
    numbers = {n.removeprefix(DENOISER): t.float() for n, t in load_file(path).items() if n.startswith(DENOISER)}
    writer, cut = begin(tmp_path / "small.gguf", family, words), set[int]()
    for name, tensor in numbers.items():
        if name.endswith(".weight") and tensor.ndim > 1 and tensor.numel() % 256 == 0 and tensor.shape[-1] % 256:
            rows = gguf.quants.quantize(tensor.reshape(-1, 256).numpy(), kind)
            writer.add_tensor(name, rows, raw_dtype=kind)
            writer.add_array(f"comfy.gguf.orig_shape.{name}", list(tensor.shape))
            numbers[name] = torch.from_numpy(gguf.quants.dequantize(rows, kind)).reshape(tensor.shape)
            cut.add(tensor.ndim)
        else:
            writer.add_tensor(name, tensor.numpy())
    finish(writer)
    assert cut == {2, 4}
    save_file({n: t.contiguous() for n, t in numbers.items()}, tmp_path / "whole.safetensors", words)
    parts = load(manager, path)
    kind_of = family_of_denoiser(read_header(tmp_path / "small.gguf"))
    ours, theirs = (
        predicted(manager, family, replace(parts, model=kind_of.load_denoiser(manager, tmp_path / name)))
        for name in ("small.gguf", "whole.safetensors")
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_pickle_gives_what_safetensors_give(tmp_path: Path, manager: ModelManager):
    path = make_tiny_sd1(tmp_path / "a.safetensors")
    whole = load_file(path)
    torch.save({"state_dict": whole, "global_step": 3}, tmp_path / "a.ckpt")
    with pytest.raises(PickleFile, match=r"a\.ckpt"):
        open_header(tmp_path / "a.ckpt")
    assert family_of(open_header(tmp_path / "a.ckpt", allow_pickle=True)).spec.name == "sd1"


def test_a_file_that_is_cut_off_is_named(tmp_path: Path, made: tuple[str, Path]):
    data = made[1].read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[: len(data) - 100])
    with pytest.raises(Truncated, match=r"cut\.safetensors"):
        open_header(tmp_path / "cut.safetensors")


def changed(made: tuple[str, Path], path: Path, change: Callable[[dict[str, Tensor], str], None]) -> str:
    """A copy whose tensors `change` has changed, given the name of one of the denoiser's matrices."""
    tensors = load_file(made[1])
    name = sorted(matrices(tensors))[0]
    change(tensors, name)
    save_file(tensors, path, dict(read_header(made[1]).metadata))
    return name


def test_what_is_missing_is_named(tmp_path: Path, manager: ModelManager, made: tuple[str, Path]):
    path = tmp_path / "hole.safetensors"
    changed(made, path, lambda tensors, name: tensors.pop(name.removesuffix("weight") + "bias"))
    with pytest.raises(MissingWeights, match=r"hole\.safetensors.*lacks 1 weights, such as '.*bias'"):
        predicted(manager, made[0], load(manager, path))


def test_what_has_another_shape_is_named(tmp_path: Path, manager: ModelManager, made: tuple[str, Path]):
    def grow(tensors: dict[str, Tensor], name: str) -> None:
        bias = name.removesuffix("weight") + "bias"
        tensors[bias] = torch.cat([tensors[bias], tensors[bias]])

    path = tmp_path / "wide.safetensors"
    name = changed(made, path, grow).removesuffix("weight")
    with pytest.raises(WrongShape, match=r"wide\.safetensors: '.*bias' has the shape \(\d+,\)") as raised:
        predicted(manager, made[0], load(manager, path))
    assert name.split(".")[-2] in str(raised.value) or made[0] in ("sd3", "flux")


def test_a_layout_that_is_not_known_names_its_file(tmp_path: Path, manager: ModelManager):
    tensors = load_file(make_tiny_sd1(tmp_path / "whole.safetensors"))
    words = dict(read_header(tmp_path / "whole.safetensors").metadata)
    del tensors[DENOISER + "input_blocks.2.0.out_layers.3.weight"]
    save_file(tensors, tmp_path / "odd.safetensors", words)
    with pytest.raises(UnknownLayout, match=r"UNet in .*odd\.safetensors .*input_blocks\.2 is neither"):
        load(manager, tmp_path / "odd.safetensors")


def test_what_nobody_asked_for_is_left_alone(tmp_path: Path, manager: ModelManager, made: tuple[str, Path]):
    path = tmp_path / "more.safetensors"
    changed(made, path, lambda tensors, name: tensors.update({"model_ema.decay": torch.ones(1)}))
    ours, theirs = (predicted(manager, made[0], load(manager, one)) for one in (path, made[1]))
    assert torch.equal(ours, theirs)


def test_kolors_is_refused_by_its_name(tmp_path: Path):
    """Its UNet is SDXL's, but for the way in of another text encoder."""
    path = make_tiny(tmp_path / "kolors.safetensors", SDXL, names="diffusers")
    tensors = load_file(path) | {"unet.encoder_hid_proj.weight": torch.zeros(4, 4)}
    save_file(tensors, path, dict(read_header(path).metadata))
    assert detect_denoiser(read_header(path)) is None
    with pytest.raises(UnknownFamily, match="checkpoint, Kolors"):
        family_of(read_header(path))


def test_ssd_1b_predicts_what_diffusers_does(tmp_path: Path, manager: ModelManager):
    """Fewer layers of transformers in some blocks, none in the middle."""
    config: dict[str, Any] = {
        **unet_config(SDXL),
        "mid_block_type": "UNetMidBlock2D",
        "transformer_layers_per_block": [1, [2, 2], [3, 3]],
        "reverse_transformer_layers_per_block": [[3, 3, 4], [2, 1, 1], 1],
    }
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**config).eval()
    names = keymaps.unet_map(config)
    tensors = {f"{DENOISER}{names.to_ldm(name)}": tensor for name, tensor in unet.state_dict().items()}
    save_file(tensors, tmp_path / "ssd.safetensors", told_in_metadata(SDXL))
    family = family_of_denoiser(read_header(tmp_path / "ssd.safetensors"))
    model = family.load_denoiser(manager, tmp_path / "ssd.safetensors")
    x, t, cross, pooled = torch.randn(1, 4, 8, 8), torch.tensor([500.0]), torch.randn(1, 7, 48), torch.randn(1, 32)
    extra = family.extra_conditions(model, pooled, {}, x)
    with manager.lease(model.ref) as leased, torch.no_grad():
        ours = family.predict(leased[model.ref], x, t, TextBatch(cross, pooled, extra))
        told = {"text_embeds": pooled, "time_ids": extra["time_ids"]}
        theirs = unet(x, t, cross, added_cond_kwargs=told).sample
    assert family.spec.name == "sdxl"
    torch.testing.assert_close(ours, theirs)
