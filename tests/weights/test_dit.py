"""Flux and SD3 in the layouts of their files, cut into the module's layers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.single_file_utils import (
    convert_flux_transformer_checkpoint_to_diffusers,
    convert_sd3_transformer_checkpoint_to_diffusers,
)
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from safetensors.torch import save_file
from torch import nn

from engine.weights.dit import flux_config, flux_map, sd3_config, sd3_map
from engine.weights.fused import Piece, cut_rows
from engine.weights.header import TensorInfo, read_header
from engine.weights.keymaps import UnknownLayout
from engine.weights.load import open_header, read_tensors
from tests.families.tiny_dit import FLUX, SD3, SD35, as_in_file, in_file_layout, tiny_flux, tiny_sd3

MODULES: dict[str, Any] = {
    "flux": tiny_flux,
    "schnell": lambda: tiny_flux(guidance_embeds=False),
    "fill": lambda: tiny_flux(in_channels=384),
    "sd3": tiny_sd3,
    "sd35": lambda: tiny_sd3(config=SD35),
}


def same(tensors: dict[str, torch.Tensor], module: nn.Module) -> None:
    state = module.state_dict()
    assert tensors.keys() == state.keys()
    assert [name for name in state if not torch.equal(tensors[name], state[name])] == []


@pytest.mark.parametrize("name", MODULES)
def test_the_layout_of_a_file_becomes_the_module(tmp_path: Path, name: str):
    module: Any = MODULES[name]()
    save_file(in_file_layout(module, "model.diffusion_model."), tmp_path / "a.safetensors")
    header = read_header(tmp_path / "a.safetensors")
    tensors = header.under("model.diffusion_model.")
    config = flux_config(tensors) if "sd3" not in name and "sd35" not in name else sd3_config(tensors)
    assert {key: module.config[key] for key in config} == config
    layout = flux_map(config) if "joint_blocks.0.x_block.attn.qkv.weight" not in tensors else sd3_map(config)
    same(read_tensors(layout.cut(header, "model.diffusion_model.")), module)


@pytest.mark.parametrize("config", [SD3, SD35])
def test_the_layout_of_sd3_is_the_one_that_diffusers_converts(config: dict[str, Any]):
    module = tiny_sd3(config=config)
    same(convert_sd3_transformer_checkpoint_to_diffusers(in_file_layout(module)), module)


def test_the_layout_of_flux_is_the_one_that_diffusers_converts():
    """Their way round knows the real width alone, so these are its rows, with few columns."""
    config = {**FLUX, "num_attention_heads": 24, "attention_head_dim": 128, "num_layers": 1, "num_single_layers": 1}
    with torch.device("meta"):
        shapes = FluxTransformer2DModel(**{**config, "axes_dims_rope": (16, 56, 56)}).state_dict()
    state = {name: torch.randn(tensor.shape[0], *(2 for _ in tensor.shape[1:])) for name, tensor in shapes.items()}
    converted = convert_flux_transformer_checkpoint_to_diffusers(as_in_file(state, flux_map(config)))
    assert converted.keys() == state.keys() and all(torch.equal(converted[name], state[name]) for name in state)


def test_the_names_of_diffusers_say_the_same_config(tmp_path: Path):
    for module, config_of, config in ((tiny_flux(), flux_config, FLUX), (tiny_sd3(config=SD35), sd3_config, SD35)):
        save_file(module.state_dict(), tmp_path / "a.safetensors")
        assert config_of(read_header(tmp_path / "a.safetensors").tensors) == config
    assert SD3["num_layers"] == 2


def test_a_pickle_is_cut_as_well(tmp_path: Path):
    module = tiny_flux()
    torch.save(in_file_layout(module), tmp_path / "a.pt")
    header = open_header(tmp_path / "a.pt", allow_pickle=True)
    same(read_tensors(flux_map(FLUX).cut(header, "")), module)


def test_a_layer_of_the_file_names_its_pieces():
    layout = flux_map(FLUX)
    assert layout.pieces_of("single_blocks.1.linear1") == (
        Piece("single_transformer_blocks.1.attn.to_q", ((0, 64),)),
        Piece("single_transformer_blocks.1.attn.to_k", ((64, 128),)),
        Piece("single_transformer_blocks.1.attn.to_v", ((128, 192),)),
        Piece("single_transformer_blocks.1.proj_mlp", ((192, 448),)),
    )
    assert layout.pieces_of("final_layer.adaLN_modulation.1") == (Piece("norm_out.linear", ((64, 128), (0, 64))),)
    assert layout.pieces_of("img_in") == (Piece("x_embedder", ()),) and layout.pieces_of("other") == ()


def test_a_missing_tensor_is_named():
    with pytest.raises(UnknownLayout, match=r"img_in\.weight"):
        flux_config({})
    with pytest.raises(UnknownLayout, match="8 rows, 9 are expected"):
        cut_rows(TensorInfo("F16", (8, 2), 0, 32, source="a"), ((0, 9),))
