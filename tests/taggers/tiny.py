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


CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'image' %}PLACE{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{% if message.role == 'user' %}<|reserved_special_token_70|><|reserved_special_token_69|>"
    "<|reserved_special_token_71|>{% endif %}{{ message.content }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def loud(module: torch.nn.Module) -> None:
    """Weights so large that words depend on what came before; with transformers' own all would be one word."""
    for weight in module.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=1.6 / weight[0].numel() ** 0.5)


def write_qwen(folder: Path, version: str = "2.5") -> Path:
    """Qwen2.5-VL or Qwen3-VL, saved by transformers in the layout that their publisher has."""
    import transformers
    from transformers import Qwen2Tokenizer
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    special = ["<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    words = Qwen2Tokenizer(
        **{"vocab": numbered(), "merges": [], "extra_special_tokens": special, "eos_token": "<|im_end|>"},
        **{"pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "bos_token": None},
    )
    words.chat_template = CHATML.replace("PLACE", "<|vision_start|><|image_pad|><|vision_end|>")
    number = words.convert_tokens_to_ids
    text = {
        **{"vocab_size": 300, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
        **{"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": 8192},
        "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 1e6},
        **{"bos_token_id": None, "eos_token_id": number("<|im_end|>"), "pad_token_id": number("<|endoftext|>")},
    }
    seen: dict[str, Any] = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2}
    seen |= {"out_hidden_size": 64, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}
    if version == "2.5":
        kind, seen = "Qwen2_5_VL", {**seen, "fullatt_block_indexes": [1], "window_size": 56}
    else:
        kind, seen = "Qwen3VL", {**seen, "deepstack_visual_indexes": [0], "num_position_embeddings": 64}
    config = getattr(transformers, f"{kind}Config")(
        text_config=text,
        vision_config=seen,
        image_token_id=number("<|image_pad|>"),
        video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
    )
    torch.manual_seed(0)
    module = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    pixels = Qwen2VLImageProcessorPil(patch_size=14, merge_size=2, temporal_patch_size=2)
    return _save(folder, module, words, pixels)


def write_joycaption(folder: Path) -> Path:
    """LLaVA of SigLIP and Llama, with pictures of 56 pixels (4 x 4 places), as JoyCaption beta one is laid out."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration, PreTrainedTokenizerFast
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    special = [f"<|reserved_special_token_{n}|>" for n in (69, 70, 71)] + ["<|start_header_id|>", "<|end_header_id|>"]
    words = PreTrainedTokenizerFast(
        tokenizer_object=_llama_tokenizer(),
        **{"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "pad_token": "<|finetune_right_pad_id|>"},
        **{"extra_special_tokens": special},
    )
    words.chat_template = LLAMA
    place = words.convert_tokens_to_ids(special[0])
    config = LlavaConfig(
        vision_config={
            **{"model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64},
            **{"num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 56, "patch_size": 14},
        },
        text_config={
            **{"model_type": "llama", "vocab_size": len(words), "hidden_size": 64, "intermediate_size": 128},
            **{"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1},
            **{"eos_token_id": words.eos_token_id, "bos_token_id": words.bos_token_id},
            **{"pad_token_id": words.pad_token_id, "tie_word_embeddings": False},
        },
        **{"image_token_index": place, "image_seq_length": 16},
        **{"vision_feature_layer": -2, "vision_feature_select_strategy": "full"},
    )
    torch.manual_seed(0)
    pixels = SiglipImageProcessorPil(size={"height": 56, "width": 56}, resample=3)
    saved = _save(folder, LlavaForConditionalGeneration(config), words, pixels)
    told = {"processor_class": "LlavaProcessor", "patch_size": 14, "vision_feature_select_strategy": "full"}
    told |= {"image_token": special[0], "num_additional_image_tokens": 0}
    (saved / "processor_config.json").write_text(json.dumps(told))
    return saved


def _llama_tokenizer() -> Any:
    """Bytes, and <|begin_of_text|> before every text unless told otherwise, as Llama 3's file has it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    first = "<|begin_of_text|>"
    made = Tokenizer(models.BPE(vocab=numbered(first), merges=[]))
    made.add_special_tokens([first])
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.TemplateProcessing(single=f"{first} $A", special_tokens=[(first, 0)])
    return made


def write_minicpm(folder: Path, version: str = "4_6") -> Path:
    """MiniCPM-V 4.6 or 4.7 with slices of 56 pixels."""
    import transformers
    from transformers import PreTrainedTokenizerFast
    from transformers.models.minicpmv4_6.image_processing_pil_minicpmv4_6 import MiniCPMV4_6ImageProcessorPil

    marks = {
        **{"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
        **{"image_start_token": "<image>", "image_end_token": "</image>"},
        **{"slice_start_token": "<slice>", "slice_end_token": "</slice>"},
        **{"image_id_start_token": "<image_id>", "image_id_end_token": "</image_id>"},
    }
    bytes_only = _llama_tokenizer()
    from tokenizers import processors

    bytes_only.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    words = PreTrainedTokenizerFast(
        tokenizer_object=bytes_only,
        **{"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "extra_special_tokens": marks},
    )
    words.add_tokens(["<|im_start|>"], special_tokens=True)
    words.chat_template = CHATML.replace("PLACE", "<|image_pad|>")
    number = words.convert_tokens_to_ids
    text = {
        **{"model_type": "qwen3_5_text", "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64},
        **{"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16},
        **{"linear_num_value_heads": 2, "linear_num_key_heads": 2, "linear_key_head_dim": 8},
        **{"linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"]},
        **{"eos_token_id": number("<|im_end|>"), "pad_token_id": number("<|endoftext|>"), "bos_token_id": None},
    }
    seen = {
        **{"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2},
        **{"patch_size": 14, "image_size": 56},
    }
    more = {"image_token_id": number("<|image_pad|>"), "video_token_id": number("<|video_pad|>")}
    if version == "4_7":
        more |= {"image_start_id": number("<image>"), "image_end_id": number("</image>")}
        more |= {"slice_start_id": number("<slice>"), "slice_end_id": number("</slice>")}
    else:
        more |= {"image_size": 56}
    config = getattr(transformers, f"MiniCPMV{version}Config")(
        text_config=text, vision_config=seen, insert_layer_id=1, **more
    )
    torch.manual_seed(0)
    module = getattr(transformers, f"MiniCPMV{version}ForConditionalGeneration")(config)
    pixels = MiniCPMV4_6ImageProcessorPil(patch_size=14, scale_resolution=56)
    return _save(folder, module, words, pixels)


def _save(folder: Path, module: Any, words: Any, pixels: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    loud(module)
    module.save_pretrained(folder)
    words.save_pretrained(folder)
    pixels.save_pretrained(folder)
    return folder


def write_siglip(folder: Path) -> Path:
    """A SigLIP that compares pictures of 56 pixels with texts of 32 tokens."""
    from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipModel
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    words = PreTrainedTokenizerFast(tokenizer_object=_llama_tokenizer(), pad_token="<|end|>", eos_token="<|end|>")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = SiglipConfig(
        text_config={**sizes, "vocab_size": len(words), "max_position_embeddings": 32, "projection_size": 32},
        vision_config={**sizes, "image_size": 56, "patch_size": 14},
    )
    torch.manual_seed(0)
    saved = _save(folder, SiglipModel(config), words, SiglipImageProcessorPil(size={"height": 56, "width": 56}))
    (saved / "processor_config.json").write_text(json.dumps({"processor_class": "SiglipProcessor"}))
    return saved


def write_clip(folder: Path) -> Path:
    """A CLIP of pictures of 56 pixels and texts of 24 tokens, in the layout of openai/clip-vit-large-patch14."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    ends = ("<|startoftext|>", "<|endoftext|>")
    letters = [*BYTES, *(f"{letter}</w>" for letter in BYTES)]
    words = CLIPTokenizer(vocab={word: i for i, word in enumerate((*letters, *ends))}, merges=[])
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        # 2 is what OpenAI's files say; the end of a text is then its highest number, as in their own code
        text_config={**sizes, "vocab_size": len(words), "max_position_embeddings": 24, "eos_token_id": 2},
        vision_config={**sizes, "image_size": 56, "patch_size": 14},
        projection_dim=16,
    )
    torch.manual_seed(0)
    sizes_in = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
    saved = _save(folder, CLIPModel(config), words, CLIPImageProcessorPil(**sizes_in))
    (saved / "processor_config.json").unlink(missing_ok=True)  # older than such files
    return saved
