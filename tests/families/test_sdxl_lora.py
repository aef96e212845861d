"""Every naming of LoRAs for SDXL finds the same modules."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.families.base import Components
from engine.families.discover import family_of
from engine.nodes.conditioning import clip_text_encode
from engine.nodes.lora import lora_loader
from engine.weights.header import read_header
from engine.workspace import Workspace
from tests.families.tiny_unets import SDXL, make_tiny
from tests.nodes.context import Context

UNET = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"  # 16 wide
TEXT = "encoder.layers.1.mlp.fc1"  # of CLIP-L 16 -> 32, of G 32 -> 64
FLAT = "down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
LAYER = "text_model.encoder.layers.1.mlp.fc1"
DIALECTS = {
    "kohya": (
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
        "lora_te1_text_model_encoder_layers_1_mlp_fc1",
        "lora_te2_text_model_encoder_layers_1_mlp_fc1",
    ),
    "kohya over diffusers' names": (
        f"lora_unet_{FLAT}",
        "lora_te1_text_model_encoder_layers_1_mlp_fc1",
        "lora_te2_text_model_encoder_layers_1_mlp_fc1",
    ),
    "diffusers": (f"unet.{UNET}", f"text_encoder.{LAYER}", f"text_encoder_2.{LAYER}"),
    "generic": (
        "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q",
        f"text_encoders.clip_l.transformer.{LAYER}",
        f"text_encoders.clip_g.transformer.{LAYER}",
    ),
}


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(Workspace(tmp_path).create())


@pytest.fixture
def loaded(ctx: Context) -> Components:
    path = make_tiny(ctx.workspace.models / "checkpoints" / "tiny.safetensors", SDXL)
    return family_of(read_header(path)).load_checkpoint(ctx.models, path)


def write(path: Path, names: tuple[str, str, str]) -> Path:
    tensors: dict[str, torch.Tensor] = {}
    for name, (width, out) in zip(names, ((16, 16), (16, 32), (32, 64)), strict=True):
        tensors[f"{name}.lora_down.weight"] = torch.randn(2, width)
        tensors[f"{name}.lora_up.weight"] = torch.randn(out, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_lora_of_every_dialect_fits(tmp_path: Path, loaded: Components, dialect: str):
    path = write(tmp_path / "lora.safetensors", DIALECTS[dialect])
    read = loaded.model.family.read_lora(path, loaded.model, loaded.clip)
    found = {part: set(modules) for part, modules in read.entries.items()}
    assert found == {"denoiser": {UNET}, "text_encoder": {TEXT}, "text_encoder_2": {TEXT}}
    assert not read.unmatched


def test_each_text_encoder_is_changed_by_its_own_half(ctx: Context, loaded: Components):
    write(ctx.workspace.models / "loras" / "lora.safetensors", DIALECTS["kohya"])
    model, clip = lora_loader(ctx, loaded.model, loaded.clip, "lora.safetensors", 1.0, 1.0)
    assert [adapter.part for adapter in model.adapters] == ["denoiser"]
    assert [adapter.part for adapter in clip.adapters] == ["text_encoder", "text_encoder_2"]
    plain = clip_text_encode(ctx, "a cat", loaded.clip)[0][0][0]
    for adapters, same, other in ((clip.adapters[:1], slice(16, 48), slice(0, 16)),
                                  (clip.adapters[1:], slice(0, 16), slice(16, 48))):  # fmt: skip
        got = clip_text_encode(ctx, "a cat", replace(loaded.clip, adapters=adapters))[0][0][0]
        assert torch.equal(got[..., same], plain[..., same])
        assert not torch.allclose(got[..., other], plain[..., other])
