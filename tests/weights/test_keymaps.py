import gzip
import json
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from engine.weights.header import TensorInfo
from engine.weights.keymaps import (
    UnknownLayout,
    clip_text_config,
    clip_text_map,
    diffusers_vae_config,
    modern_vae_name,
    unet_map,
    vae_config,
    vae_map,
)
from engine.weights.unet_config import diffusers_unet_config, unet_config

LAYOUT = Path(__file__).parents[1] / "parity" / "layouts" / "sd15.json.gz"


def sd15(prefix: str) -> dict[str, TensorInfo]:
    """Names and shapes of the real SD 1.5."""
    layout = json.loads(gzip.decompress(LAYOUT.read_bytes()))
    return {name[len(prefix) :]: TensorInfo("F16", tuple(shape)) for name, shape in layout if name.startswith(prefix)}


def shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def infos(of: dict[str, tuple[int, ...]]) -> dict[str, TensorInfo]:
    return {name: TensorInfo("F16", shape) for name, shape in of.items()}


def test_the_unet_of_sd15_fits_diffusers_and_back():
    tensors = sd15("model.diffusion_model.")
    config = unet_config(tensors)
    keymap = unet_map(config)
    with torch.device("meta"):
        need = shapes(UNet2DConditionModel(**config, attention_head_dim=8))
    assert {keymap.to_diffusers(name): info.shape for name, info in tensors.items()} == need
    assert all(keymap.to_ldm(keymap.to_diffusers(name) or "") == name for name in tensors)
    assert diffusers_unet_config(infos(need)) == config


def test_the_autoencoder_of_sd15_fits_diffusers_and_back():
    tensors = sd15("first_stage_model.")
    config = vae_config(tensors)
    keymap = vae_map(config)
    with torch.device("meta"):
        need = shapes(AutoencoderKL(**config))
    assert {keymap.to_diffusers(name) for name in tensors} == set(need)
    assert all(keymap.to_ldm(keymap.to_diffusers(name) or "") == name for name in tensors)
    assert diffusers_vae_config(infos(need)) == config


def test_the_text_encoder_of_sd15_fits_transformers():
    tensors = sd15("cond_stage_model.transformer.")
    config = clip_text_config(tensors)
    with torch.device("meta"):
        need = shapes(CLIPTextModel(CLIPTextConfig(**config, num_attention_heads=12)))
    renamed = {clip_text_map().to_diffusers(name): info.shape for name, info in tensors.items()}
    assert renamed.pop(None) == (1, 77), "position ids are no weight"
    assert renamed == need


@pytest.mark.parametrize(
    ("channels", "layers", "attends", "depth"),
    [
        ((8, 16), 1, (True, False), (1, 1)),
        ((8, 8, 16), 2, (False, True, True), (1, 2, 3)),
        ((8, 16, 16, 32, 32), 3, (True, True, True, True, False), (1, 1, 1, 1, 1)),
    ],
)
def test_any_number_of_levels_and_layers_maps_both_ways(channels, layers, attends, depth):
    config = {
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        "up_block_types": tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        "transformer_layers_per_block": depth,
        "cross_attention_dim": 16,
        "use_linear_projection": False,
    }
    with torch.device("meta"):
        need = shapes(UNet2DConditionModel(**config, attention_head_dim=2, norm_num_groups=4))
    keymap = unet_map(config)
    ldm = {keymap.to_ldm(name) or name: shape for name, shape in need.items()}
    assert len(ldm) == len(need)
    assert {keymap.to_diffusers(name): shape for name, shape in ldm.items()} == need
    assert unet_config(infos(ldm)) == config


def test_modules_are_mapped_like_their_tensors():
    keymap = unet_map(unet_config(sd15("model.diffusion_model.")))
    assert keymap.to_ldm("up_blocks.1.attentions.2.proj_in") == "output_blocks.5.1.proj_in"
    assert keymap.to_diffusers("output_blocks.2.1.conv") == "up_blocks.0.upsamplers.0.conv"
    assert keymap.to_diffusers("nothing.of.the.kind") is None


def test_old_names_of_an_autoencoders_attention_are_known():
    assert (
        modern_vae_name("encoder.mid_block.attentions.0.query.weight") == "encoder.mid_block.attentions.0.to_q.weight"
    )
    assert modern_vae_name("encoder.conv_in.weight") == "encoder.conv_in.weight"


def test_a_layout_without_its_first_block_is_refused():
    with pytest.raises(UnknownLayout, match="input_blocks"):
        unet_config({})
    with pytest.raises(UnknownLayout):
        vae_config({})
    with pytest.raises(UnknownLayout):
        clip_text_config({})
