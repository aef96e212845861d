"""Names of T5's encoder in files <-> transformers' T5EncoderModel, and its config from shapes. Torch-free.

ComfyUI's and transformers' files have the module's names; GGUF files have llama.cpp's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from engine.weights.header import TensorInfo
from engine.weights.keymaps import UnknownLayout

_LLAMA_CPP = {
    "attn_q": "layer.0.SelfAttention.q",
    "attn_k": "layer.0.SelfAttention.k",
    "attn_v": "layer.0.SelfAttention.v",
    "attn_o": "layer.0.SelfAttention.o",
    "attn_rel_b": "layer.0.SelfAttention.relative_attention_bias",
    "attn_norm": "layer.0.layer_norm",
    "ffn_gate": "layer.1.DenseReluDense.wi_0",
    "ffn_up": "layer.1.DenseReluDense.wi_1",
    "ffn_down": "layer.1.DenseReluDense.wo",
    "ffn_norm": "layer.1.layer_norm",
}
_LLAMA_CPP_OUTER = {"token_embd": "shared", "enc.output_norm": "encoder.final_layer_norm"}
_BLOCK = re.compile(r"enc\.blk\.(\d+)\.(\w+)(?=\.)")
_FIRST = "encoder.block.0.layer.0.SelfAttention.q.weight"


def t5_name(name: str) -> str | None:
    """The module's name of a tensor of a file that has `shared`; None for what the module does not have (a decoder,
    marks of quantisation)."""
    if name == "encoder.embed_tokens.weight":
        return None  # the same as shared
    found = _BLOCK.match(name)
    if found and found[2] not in _LLAMA_CPP:
        return None
    if found:
        return f"encoder.block.{found[1]}.{_LLAMA_CPP[found[2]]}{name[found.end() :]}"
    for old, new in _LLAMA_CPP_OUTER.items():
        if name.startswith(old + "."):
            return new + name[len(old) :]
    return name if name.startswith(("encoder.", "shared.")) else None


def t5_name_alone(name: str) -> str | None:
    """As `t5_name`, of a file that has its table of words only under its other name."""
    other = "encoder.embed_tokens."
    return f"shared.{name.removeprefix(other)}" if name.startswith(other) else t5_name(name)


def is_t5(tensors: Mapping[str, TensorInfo]) -> bool:
    return any(t5_name(name) == _FIRST for name in ("encoder.block.0.layer.0.SelfAttention.q.weight",
                                                     "enc.blk.0.attn_q.weight") if name in tensors)  # fmt: skip


def t5_config(tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """What the shapes say of T5Config: everything of T5 v1.1, whose feed-forward layers are gated. `tensors` by the
    module's names. Raises UnknownLayout."""
    try:
        vocabulary, width = tensors["shared.weight"].shape
        inner = tensors[_FIRST].shape[0]
        buckets, heads = tensors["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"].shape
        forward = tensors["encoder.block.0.layer.1.DenseReluDense.wi_0.weight"].shape[0]
    except (KeyError, ValueError) as error:
        raise UnknownLayout(what="T5 text encoder", reason=f"{error} is missing") from error
    return {
        "vocab_size": vocabulary,
        "d_model": width,
        "d_kv": inner // heads,
        "d_ff": forward,
        "num_heads": heads,
        "num_layers": 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("encoder.block.")),
        "relative_attention_num_buckets": buckets,
        "feed_forward_proj": "gated-gelu",
        "dropout_rate": 0.0,
    }
