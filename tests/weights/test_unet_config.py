"""UNets that are cut here and there, as distilled ones of SDXL are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from engine.weights.header import TensorInfo
from engine.weights.keymaps import UnknownLayout, unet_map
from engine.weights.unet_config import diffusers_unet_config, unet_config

SDXL: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "projection_class_embeddings_input_dim": 2816,
}
# As their config.json says.
SSD_1B = {
    "mid_block_type": "UNetMidBlock2D",
    "transformer_layers_per_block": [1, [2, 2], [4, 4]],
    "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
}
VEGA = {"mid_block_type": "UNetMidBlock2D", "transformer_layers_per_block": (1, 1, 2)}
KOALA_700M = {"mid_block_type": None, "layers_per_block": 1, "transformer_layers_per_block": (1, 2, 5)}
KOALA_1B = {"layers_per_block": 1, "transformer_layers_per_block": (1, 2, 6)}


@pytest.mark.parametrize("changes", [{}, SSD_1B, VEGA, KOALA_700M, KOALA_1B])
def test_a_config_comes_from_the_shapes_of_either_layout(changes: dict[str, Any]):
    config = {**SDXL, **changes}
    told = {"addition_embed_type": "text_time", "addition_time_embed_dim": 256, "attention_head_dim": (5, 10, 20)}
    with torch.device("meta"):
        state = UNet2DConditionModel(**config, **told).state_dict()
    tensors = {name: TensorInfo("F16", tuple(tensor.shape)) for name, tensor in state.items()}
    names = unet_map(config)
    ldm = {names.to_ldm(name) or name: info for name, info in tensors.items()}
    assert len(ldm) == len(tensors) and not ldm.keys() & tensors.keys()
    assert unet_config(ldm) == diffusers_unet_config(tensors) == config
    assert {names.to_diffusers(name) for name in ldm} == tensors.keys()


def test_a_level_that_attends_in_some_blocks_only_is_refused():
    config = {**SDXL, "addition_embed_type": "text_time", "addition_time_embed_dim": 256}
    with torch.device("meta"):
        state = UNet2DConditionModel(**config).state_dict()
    cut = {n: TensorInfo("F16", tuple(t.shape)) for n, t in state.items() if "down_blocks.1.attentions.1" not in n}
    with pytest.raises(UnknownLayout, match=r"\[2, 0\]"):
        diffusers_unet_config(cut)
