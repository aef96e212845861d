from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.weights.adapter_keys import split_key
from engine.weights.header import Header, read_header
from engine.weights.keymaps import clip_text_map, unet_map
from engine.weights.lora import (
    LoraOfOtherModel,
    NoLora,
    clip_names,
    kohya_name,
    read_lora,
    unet_names,
)
from tests.families.tiny import UNET

Q = "up_blocks.2.attentions.1.transformer_blocks.0.attn1.to_q"
OUT = "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"
CONV = "down_blocks.0.resnets.0.conv1"
TEXT = "encoder.layers.1.self_attn.q_proj"
SHAPES = {"denoiser": {Q: (8, 8), OUT: (16, 16), CONV: (8, 8, 3, 3)}, "text_encoder": {TEXT: (32, 32)}}
MAP = unet_map(UNET)
TABLES = {
    "denoiser": unet_names(SHAPES["denoiser"], MAP),
    "text_encoder": clip_names(SHAPES["text_encoder"], clip_text_map()),
}


def ldm(module: str) -> str:
    return MAP.to_ldm(module) or ""


def flat(name: str) -> str:
    return name.replace(".", "_")


def write(path: Path, tensors: dict[str, tuple[int, ...]]) -> Header:
    save_file({name: torch.ones(shape) for name, shape in tensors.items()}, path)
    return read_header(path)


def pair(base: str, down: str, up: str, shape: tuple[int, ...], rank: int = 2) -> dict[str, tuple[int, ...]]:
    kernel, ones = shape[2:], (1,) * len(shape[2:])
    return {f"{base}{down}": (rank, shape[1], *kernel), f"{base}{up}": (shape[0], rank, *ones)}


KOHYA = (".lora_down.weight", ".lora_up.weight")
PEFT = (".lora_A.weight", ".lora_B.weight")
LAYER = (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight")
OLD = ("_lora.down.weight", "_lora.up.weight")
DIALECTS: dict[str, tuple[Callable[[str], str], tuple[str, str]]] = {
    "kohya": (lambda m: f"lora_unet_{flat(m)}", KOHYA),
    "kohya over LDM": (lambda m: f"lora_unet_{flat(ldm(m))}", KOHYA),
    "diffusers": (lambda m: f"unet.{m}", (".lora.down.weight", ".lora.up.weight")),
    "diffusers, linear layer": (
        lambda m: f"unet.{m}",
        (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
    ),
    "peft of a pipeline": (lambda m: f"unet.{m}", PEFT),
    "peft of a model": (lambda m: f"base_model.model.{m}", PEFT),
    "peft, named adapter": (lambda m: f"base_model.model.{m}", (".lora_A.default.weight", ".lora_B.default.weight")),
    "LDM names": (lambda m: f"diffusion_model.{ldm(m)}", PEFT),
    "bare": (lambda m: m, PEFT),
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("module", [Q, OUT, CONV])
def test_every_dialect_of_the_unet_names_the_module(tmp_path: Path, dialect: str, module: str):
    name, (down, up) = DIALECTS[dialect]
    shape = SHAPES["denoiser"][module]
    lora = read_lora(write(tmp_path / "a.safetensors", pair(name(module), down, up, shape)), TABLES, SHAPES, "it", "it")
    assert list(lora.entries["denoiser"]) == [module] and not lora.unmatched
    entry = lora.entries["denoiser"][module]
    assert (tuple(entry.down.shape), entry.up.shape[0], entry.scale) == ((2, *shape[1:]), shape[0], 1.0)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (Q, "unet.up_blocks.2.attentions.1.transformer_blocks.0.attn1.processor.to_q"),
        (OUT, "unet.mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_out"),
    ],
)
def test_old_attention_processors_name_the_module(tmp_path: Path, module: str, name: str):
    header = write(tmp_path / "a.safetensors", pair(name, *OLD, SHAPES["denoiser"][module]))
    assert list(read_lora(header, TABLES, SHAPES, "it", "it").entries["denoiser"]) == [module]


@pytest.mark.parametrize(
    ("prefix", "suffixes"),
    [
        ("lora_te_text_model_encoder_layers_1_self_attn_q_proj", KOHYA),
        ("lora_te1_text_model_encoder_layers_1_self_attn_q_proj", KOHYA),
        ("text_encoder.text_model.encoder.layers.1.self_attn.q_proj", PEFT),
        ("text_encoder.text_model.encoder.layers.1.self_attn.q_proj", LAYER),
        ("base_model.model.text_model.encoder.layers.1.self_attn.q_proj", PEFT),
        ("text_encoders.clip_l.transformer.text_model.encoder.layers.1.self_attn.q_proj", PEFT),
    ],
)  # fmt: skip
def test_every_dialect_of_the_text_encoder_names_the_module(tmp_path: Path, prefix: str, suffixes: tuple[str, str]):
    header = write(tmp_path / "a.safetensors", pair(prefix, *suffixes, (32, 32)))
    assert list(read_lora(header, TABLES, SHAPES, "it", "it").entries["text_encoder"]) == [TEXT]


def test_alpha_over_rank_scales(tmp_path: Path):
    tensors = pair(f"lora_unet_{flat(Q)}", *KOHYA, (8, 8), rank=4)
    tensors = {name: torch.ones(shape) for name, shape in tensors.items()}
    save_file({**tensors, f"lora_unet_{flat(Q)}.alpha": torch.tensor(2.0)}, tmp_path / "a.safetensors")
    entry = read_lora(read_header(tmp_path / "a.safetensors"), TABLES, SHAPES, "it", "it").entries["denoiser"][Q]
    assert (entry.alpha, entry.scale) == (2.0, 0.5)


def test_what_fits_nothing_is_reported(tmp_path: Path):
    stranger = pair("lora_unet_some_other_module", *KOHYA, (8, 8))
    header = write(tmp_path / "a.safetensors", {**pair(f"lora_unet_{flat(Q)}", *KOHYA, (8, 8)), **stranger})
    assert set(read_lora(header, TABLES, SHAPES, "it", "it").unmatched) == set(stranger)


def test_a_scale_of_nothing_is_reported(tmp_path: Path):
    alone = f"lora_unet_{flat(OUT)}.alpha"
    header = write(tmp_path / "a.safetensors", {**pair(f"lora_unet_{flat(Q)}", *KOHYA, (8, 8)), alone: ()})
    file = read_lora(header, TABLES, SHAPES, "it", "it")
    assert (list(file.entries["denoiser"]), file.unmatched) == ([Q], (alone,))


@pytest.mark.parametrize(("name", "shape"), [("alpha", (2,)), ("dora_scale", (7, 1)), ("dora_scale", (1, 9))])
def test_a_scale_of_another_size_is_refused(tmp_path: Path, name: str, shape: tuple[int, ...]):
    odd = f"lora_unet_{flat(Q)}.{name}"
    header = write(tmp_path / "a.safetensors", {**pair(f"lora_unet_{flat(Q)}", *KOHYA, (8, 8)), odd: shape})
    with pytest.raises(LoraOfOtherModel, match=f"{name}' is"):
        read_lora(header, TABLES, SHAPES, "it", "it")


def test_a_lora_of_which_nothing_fits_is_refused_by_family(tmp_path: Path):
    header = write(tmp_path / "a.safetensors", pair("lora_unet_double_blocks_0_img_attn_qkv", *KOHYA, (8, 8)))
    with pytest.raises(LoraOfOtherModel, match=r"is for Flux\.1, the model is SDXL"):
        read_lora(header, TABLES, SHAPES, "Flux.1", "SDXL")


def test_a_lora_of_other_sizes_is_refused(tmp_path: Path):
    header = write(tmp_path / "a.safetensors", pair(f"lora_unet_{flat(Q)}", *KOHYA, (64, 64)))
    with pytest.raises(LoraOfOtherModel, match="8 x 8"):
        read_lora(header, TABLES, SHAPES, "it", "it")


def test_half_a_pair_is_refused(tmp_path: Path):
    header = write(tmp_path / "a.safetensors", {f"lora_unet_{flat(Q)}.lora_down.weight": (2, 8)})
    with pytest.raises(LoraOfOtherModel, match="no other half"):
        read_lora(header, TABLES, SHAPES, "it", "it")


def test_a_checkpoint_is_no_lora(tmp_path: Path):
    with pytest.raises(NoLora):
        read_lora(write(tmp_path / "a.safetensors", {"model.diffusion_model.x": (1,)}), TABLES, SHAPES, "it", "it")


def test_kohyas_name_comes_back_to_its_module():
    assert TABLES["denoiser"][kohya_name("lora_unet", Q)] == Q
    assert split_key(f"{kohya_name('lora_unet', Q)}.lora_mid.weight") == (kohya_name("lora_unet", Q), "mid")
