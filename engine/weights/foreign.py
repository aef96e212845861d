"""Models of other makers that are not run here, told by tensors that only they have: so that a refusal can name them.
Torch-free."""

from __future__ import annotations

from collections.abc import Mapping

# The first that fits; a model is of the kind when its file has all of these names, behind any of the prefixes.
LANDMARKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Kolors", ("encoder_hid_proj.weight",)),
    ("Stable Cascade", ("clf.1.weight",)),
    ("AuraFlow", ("double_layers.0.attn.w1q.weight",)),
    ("HunyuanDiT", ("mlp_t5.0.weight",)),
    ("HunyuanVideo", ("txt_in.individual_token_refiner.blocks.0.norm1.weight",)),
    ("Chroma", ("distilled_guidance_layer.norms.0.scale",)),
    ("Chroma", ("distilled_guidance_layer.0.norms.0.scale",)),
    ("Chroma", ("distilled_guidance_layer.in_proj.weight",)),
    ("Flux.2", ("double_stream_modulation_img.lin.weight",)),
    ("Qwen-Image", ("txt_norm.weight", "transformer_blocks.0.img_mod.1.weight")),
    ("Lumina 2 or Z-Image", ("cap_embedder.1.weight", "noise_refiner.0.attention.k_norm.weight")),
    ("HiDream", ("caption_projection.0.linear.weight",)),
    ("Mochi", ("t5_yproj.weight",)),
    ("LTX-Video", ("patchify_proj.weight",)),
    ("PixArt", ("adaln_single.emb.timestep_embedder.linear_1.weight",)),
    ("PixArt", ("t_block.1.weight", "y_embedder.y_embedding")),
    ("Wan", ("head.modulation", "patch_embedding.weight")),
    ("Cosmos", ("blocks.block0.blocks.0.block.attn.to_q.0.weight",)),
    ("Stable Video Diffusion", ("input_blocks.1.0.time_stack.in_layers.0.weight",)),
    ("AnimateDiff", ("down_blocks.0.motion_modules.0.temporal_transformer.norm.weight",)),
)
PREFIXES = ("model.diffusion_model.", "unet.", "transformer.", "")


def foreign(names: Mapping[str, object]) -> str:
    """Which of them a file is; "" for all others."""
    for title, marks in LANDMARKS:
        if any(all(prefix + mark in names for mark in marks) for prefix in PREFIXES):
            return title
    return ""
