from pathlib import Path

import pytest

from engine.weights.header import read_header
from engine.weights.identify import identify
from tests.weights.files import empty_tensors

BLOCK = "1.1.transformer_blocks.0"


@pytest.mark.parametrize(
    ("names", "kind", "family"),
    [
        ({"lora_unet_down_blocks_0_attentions_0_attn2_to_k.lora_down.weight": (4, 768)}, "lora", "sd1"),
        ({"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": (4, 2048)}, "lora", "sdxl"),
        ({"lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_v.lora_down.weight": (4, 1024)}, "lora", "sd2"),
        ({"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (4, 3072)}, "lora", "flux"),
        ({"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": (4, 3072)}, "lora", "flux"),
        ({"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 1280)}, "lora", "sdxl"),
        ({"model.diffusion_model.x": (1,), "cond_stage_model.transformer.x": (1,)}, "checkpoint", "sd1"),
        ({"model.diffusion_model.x": (1,), "cond_stage_model.model.x": (1,)}, "checkpoint", "sd2"),
        ({"model.diffusion_model.double_blocks.0.x": (1,)}, "checkpoint", "flux"),
        ({"decoder.conv_in.weight": (8, 4, 3, 3), "encoder.conv_in.weight": (8, 3, 3, 3)}, "vae", ""),
        ({"emb_params": (2, 768)}, "embedding", "sd1"),
        ({"clip_l": (2, 768), "clip_g": (2, 1280)}, "embedding", "sdxl"),
        ({"control_model.input_hint_block.0.weight": (16, 3, 3, 3)}, "controlnet", ""),
        ({"text_model.encoder.layers.0.mlp.fc1.weight": (4, 4)}, "text_encoder", ""),
        ({"input_blocks.0.0.weight": (4, 4, 3, 3), f"{BLOCK}.attn2.to_k.weight": (4, 768)}, "denoiser", "sd1"),
        ({"conv_in.weight": (4, 4, 3, 3), f"down_blocks.{BLOCK}.attn2.to_k.weight": (4, 2048)}, "denoiser", "sdxl"),
        ({"conv_in.weight": (4, 4, 3, 3), f"{BLOCK}.attn2.to_k.weight": (4, 1280)}, "denoiser", "sdxl_refiner"),
        ({f"control_model.{BLOCK}.attn2.to_k.weight": (4, 1024)}, "controlnet", "sd2"),
        ({f"model.diffusion_model.{BLOCK}.attn2.to_k.weight": (4, 1280)}, "checkpoint", "sdxl_refiner"),
        (
            {
                "model.diffusion_model.cap_embedder.1.weight": (4, 4),
                "model.diffusion_model.noise_refiner.0.attention.k_norm.weight": (4,),
            },
            "denoiser",
            "Lumina 2 or Z-Image",
        ),
        ({"encoder_hid_proj.weight": (2048, 4096), f"{BLOCK}.attn2.to_k.weight": (4, 2048)}, "denoiser", "Kolors"),
        ({"head.modulation": (1, 2, 4), "patch_embedding.weight": (4, 16, 1, 2, 2)}, "denoiser", "Wan"),
        ({"anything": (1, 2, 3)}, "unknown", ""),
    ],
)
def test_a_file_is_named_by_its_tensors(tmp_path: Path, names, kind: str, family: str):
    info = identify(read_header(empty_tensors(tmp_path / "file.safetensors", names)))
    assert (info.kind, info.family, info.title) == (kind, family, "file")


def test_metadata_helps_where_names_do_not(tmp_path: Path):
    metadata = {"ss_base_model_version": "sdxl_base_v1-0", "ss_output_name": "mine", "modelspec.trigger_phrase": "a, b"}
    names = {"lora_unet_x.lora_down.weight": (4, 4)}
    info = identify(read_header(empty_tensors(tmp_path / "file.safetensors", names, metadata)))
    assert (info.family, info.family_title, info.title, info.trigger_words) == ("sdxl", "SDXL", "mine", ("a", "b"))
