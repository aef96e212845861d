"""Stable Diffusion 3's nodes, from files to a latent."""

from pathlib import Path
from typing import Any

import torch

from engine.families.clip_types import clip_types, dual_clip_types
from engine.nodes.conditioning import clip_text_encode
from engine.nodes.guidance import skip_layer_guidance_sd3
from engine.nodes.loaders import checkpoint_loader_simple, dual_clip_loader, triple_clip_loader
from engine.nodes.model_sampling import model_sampling_sd3
from engine.nodes.sampling import ksampler
from engine.nodes.sd3 import clip_text_encode_sd3, empty_sd3_latent_image
from engine.nodes.vae import vae_decode
from engine.workspace import Workspace
from tests.families.tiny_dit import (
    SD3_TEXT,
    SD35,
    clip_tensors,
    make_sd3_checkpoint,
    save,
    t5_tensors,
    tiny_clip,
    tiny_projection,
    tiny_t5,
)  # fmt: skip
from tests.nodes.context import Context


def test_a_picture_is_made_from_a_checkpoint(tmp_path: Path):
    ctx = Context(Workspace(tmp_path).create())
    make_sd3_checkpoint(ctx.workspace.models / "checkpoints" / "sd3.safetensors", SD35)
    model, clip, vae = checkpoint_loader_simple(ctx, "sd3.safetensors")
    (positive,) = clip_text_encode_sd3(ctx, clip, "fox", "fox", "a red fox in the snow", "none")
    (negative,) = clip_text_encode(ctx, "blurry", clip)
    (latent,) = empty_sd3_latent_image(ctx, 64, 48, 1)

    def run(model: Any) -> torch.Tensor:
        return ksampler(ctx, model, 1, 2, 4.0, "euler", "sgm_uniform", positive, negative, latent, 1.0)[0]["samples"]

    first = run(model)
    assert first.shape == (1, 16, 6, 8) and bool(torch.isfinite(first).all())
    assert torch.equal(first, run(model_sampling_sd3(ctx, model, 3.0)[0]))
    assert not torch.equal(first, run(model_sampling_sd3(ctx, model, 1.0)[0]))
    assert not torch.equal(first, run(skip_layer_guidance_sd3(ctx, model, "1", 3.0, 0.0, 1.0)[0]))
    (image,) = vae_decode(ctx, {"samples": first}, vae)
    assert image.shape == (1, 12, 16, 3)


def test_empty_prompts_are_encoded_or_left_out(tmp_path: Path):
    ctx = Context(Workspace(tmp_path).create())
    folder = ctx.workspace.models / "text_encoders"
    save(clip_tensors(tiny_clip("l")), folder / "l.safetensors")
    save({**clip_tensors(tiny_clip("g")), "text_projection.weight": tiny_projection()}, folder / "g.safetensors")
    save(t5_tensors(tiny_t5(SD3_TEXT)), folder / "t5.safetensors")
    (clip,) = triple_clip_loader(ctx, "t5.safetensors", "g.safetensors", "l.safetensors")

    def tokens(clip_l: str, clip_g: str, t5xxl: str, padding: str) -> int:
        return clip_text_encode_sd3(ctx, clip, clip_l, clip_g, t5xxl, padding)[0][0][0].shape[1]

    assert tokens("fox", "", "", "empty_prompt") == tokens("fox", "", "fox", "none") == 154
    assert tokens("", "", "", "empty_prompt") == 154
    assert tokens("fox", "", "", "none") == tokens("", "", "fox", "none") == tokens("", "", "", "none") == 77
    (two,) = dual_clip_loader(ctx, "l.safetensors", "g.safetensors", "sd3")
    assert two.names == ("l", "g") and "sd3" in clip_types(ctx.workspace) and "sd3" in dual_clip_types(ctx.workspace)
