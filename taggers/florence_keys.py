"""Microsoft's files of Florence-2, made for code that came along with them, as transformers' own classes want them.

Names of weights, and the fields of config.json. Torch-free: names only; what has to be transposed is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

IMAGE_TOKEN = "<image>"  # not in Microsoft's tokenizer: the next free number behind it
DROPPED = "language_model.final_logits_bias"  # zeros
TIED = ("language_model.model.encoder.embed_tokens.weight", "language_model.model.decoder.embed_tokens.weight")
TRANSPOSED = "model.multi_modal_projector.image_projection.weight"
# BART's words for what begins, ends and fills a text
MARKS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
_BLOCK = r"^(vision_tower\.blocks\.\d+\.\d+\.(?:spatial|channel)_block"
_RULES: tuple[tuple[str, str], ...] = (
    (r"^vision_tower\.convs\.(\d+)\.proj\.", r"model.vision_tower.convs.\1.conv."),
    (r"^vision_tower\.convs\.(\d+)\.norm\.", r"model.vision_tower.convs.\1.norm."),
    (_BLOCK + r"\.conv[12])\.fn\.dw\.", r"model.\1."),
    (_BLOCK + r")\.(?:window_attn|channel_attn)\.norm\.", r"model.\1.norm1."),
    (_BLOCK + r"\.(?:window_attn|channel_attn))\.fn\.", r"model.\1."),
    (_BLOCK + r")\.ffn\.norm\.", r"model.\1.norm2."),
    (_BLOCK + r"\.ffn)\.fn\.net\.", r"model.\1."),
    (r"^image_projection$", TRANSPOSED),
    (r"^image_proj_norm\.", "model.multi_modal_projector.image_proj_norm."),
    (r"^image_pos_embed\.", "model.multi_modal_projector.image_position_embed."),
    (r"^visual_temporal_embed\.", "model.multi_modal_projector.visual_temporal_embed."),
    (r"^language_model\.model\.", "model.language_model."),
    (r"^language_model\.lm_head\.", "lm_head."),
)


def is_microsoft_layout(names: Iterable[str]) -> bool:
    return "image_projection" in set(names)


def native_name(name: str) -> str | None:
    """The name of a weight in transformers' class; None for what is dropped. Raises KeyError for an unknown one."""
    if name == DROPPED:
        return None
    for pattern, replacement in _RULES:
        new, hits = re.subn(pattern, replacement, name)
        if hits:
            return new
    raise KeyError(name)


def native_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of Microsoft's layout in the words of transformers' Florence2Config."""
    vision = dict(config.get("vision_config") or {})
    temporal = vision.pop("visual_temporal_embedding", None) or {}
    position = vision.pop("image_pos_embed", None) or {}
    known = (
        *("depths", "patch_size", "patch_stride", "patch_padding", "patch_prenorm", "num_heads", "num_groups"),
        *("window_size", "drop_path_rate", "mlp_ratio", "qkv_bias", "projection_dim"),
    )
    native = {name: vision[name] for name in known if name in vision}
    native["embed_dim"] = vision.get("dim_embed", vision.get("embed_dim", [128, 256, 512, 1024]))
    native["max_temporal_embeddings"] = temporal.get("max_temporal_embeddings", 100)
    native["max_position_embeddings"] = position.get("max_pos_embeddings", 50)
    unwanted = ("model_type", "architectures", "auto_map", "torch_dtype", "transformers_version", "_name_or_path")
    text = {k: v for k, v in (config.get("text_config") or {}).items() if k not in unwanted}
    return {"vision_config": native, "text_config": {"model_type": "bart", **text}}


def added_words() -> list[str]:
    """The words that Microsoft's processor adds to BART's 50,265, in their order: they are numbered from there on."""
    plain = ("cap", "ncap", "dcap", "grounding", "seg")
    return [
        *("<od>", "</od>", "<ocr>", "</ocr>"),
        *(f"<loc_{number}>" for number in range(1000)),
        *(mark for word in plain for mark in (f"<{word}>", f"</{word}>")),
        *("<sep>", "<region_cap>", "</region_cap>", "<region_to_desciption>", "</region_to_desciption>"),
        *("<proposal>", "</proposal>", "<poly>", "</poly>", "<and>"),
    ]
