"""Captioners of a few thousand random weights in the real layouts, with tokenizers whose words are bytes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers.pre_tokenizers import ByteLevel

from taggers.florence_keys import added_words

BYTES = sorted(ByteLevel.alphabet())


def numbered(*first: str) -> dict[str, int]:
    return {word: number for number, word in enumerate((*first, *BYTES))}


def write_florence(folder: Path, *, microsoft: bool = False) -> Path:
    """Florence-2 with pictures of 64 pixels (2 x 2 places and one), as transformers saves it or as Microsoft did."""
    from transformers import BartTokenizer, Florence2Config, Florence2ForConditionalGeneration
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    torch.manual_seed(0)
    words = BartTokenizer(vocab=numbered("<s>", "<pad>", "</s>", "<unk>", "<mask>"), merges=[])
    size = 5 + len(BYTES) + len(added_words())
    if not microsoft:
        words.add_tokens([*added_words(), "<image>"], special_tokens=True)
    text: dict[str, Any] = {
        **{"model_type": "bart", "vocab_size": size if microsoft else size + 51, "d_model": 32},
        **{"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2},
        **{"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 1300, "forced_bos_token_id": 0},
        **{
            "bos_token_id": 0,
            "pad_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 2,
            "forced_eos_token_id": 2,
        },
    }
    vision = {
        **{"depths": [1, 1, 1, 1], "embed_dim": [8, 8, 16, 16], "num_heads": [1, 1, 2, 2], "num_groups": [1, 1, 2, 2]},
        **{"window_size": 4, "projection_dim": 32},
    }
    config = Florence2Config(text_config=text, vision_config=vision, image_token_id=size)
    module = Florence2ForConditionalGeneration(config)
    for weight in module.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.2)
    folder.mkdir(parents=True, exist_ok=True)
    module.save_pretrained(folder)
    words.save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"height": 64, "width": 64},
        do_center_crop=False,
        resample=3,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
        image_seq_length=5,
    ).save_pretrained(folder)
    if microsoft:
        _as_microsoft(folder, text, vision)
    return folder


def _as_microsoft(folder: Path, text: dict[str, Any], vision: dict[str, Any]) -> None:
    stored = load_file(folder / "model.safetensors")
    weights = {_microsoft_name(name): weight.clone() for name, weight in stored.items()}
    weights["image_projection"] = weights["image_projection"].t().contiguous()
    weights["language_model.final_logits_bias"] = torch.zeros(1, text["vocab_size"])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    told = {k: v for k, v in vision.items() if k != "embed_dim"} | {
        "model_type": "davit",
        "dim_embed": vision["embed_dim"],
        "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": 50},
        "visual_temporal_embedding": {"type": "COSINE", "max_temporal_embeddings": 100},
        "image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"],
    }
    config = {
        "architectures": ["Florence2ForConditionalGeneration"],
        "auto_map": {"AutoConfig": "configuration_florence2.Florence2Config"},
        "model_type": "florence2",
        "vision_config": told,
        "text_config": {**text, "model_type": "florence2_language"},
        "vocab_size": text["vocab_size"],
    }
    (folder / "config.json").write_text(json.dumps(config))


def _microsoft_name(name: str) -> str:
    """A native name in Microsoft's words; written apart from the rules that are tested with it."""
    block = re.match(r"^model\.(vision_tower\.blocks\.\d+\.\d+\.(spatial|channel)_block)\.(.*)$", name)
    if block:
        attention = "window_attn" if block[2] == "spatial" else "channel_attn"
        rest = re.sub(r"^(conv[12])\.", r"\1.fn.dw.", block[3])
        rest = re.sub(r"^norm1\.", f"{attention}.norm.", rest)
        rest = re.sub(r"^norm2\.", "ffn.norm.", rest)
        rest = re.sub(r"^(window_attn|channel_attn)\.(qkv|proj)", r"\1.fn.\2", rest)
        return f"{block[1]}.{re.sub(r'^ffn[.]fc', 'ffn.fn.net.fc', rest)}"
    name = re.sub(r"^model\.vision_tower\.convs\.(\d+)\.conv\.", r"vision_tower.convs.\1.proj.", name)
    name = name.replace("model.multi_modal_projector.image_projection.weight", "image_projection")
    name = name.replace("model.multi_modal_projector.image_position_embed.", "image_pos_embed.")
    name = name.replace("model.multi_modal_projector.", "").replace("model.vision_tower.", "vision_tower.")
    name = name.replace("model.language_model.", "language_model.model.")
    return f"language_model.{name}" if name.startswith("lm_head") else name
