"""OpenCLIP's layout of text encoders, as SD 2.x and SDXL checkpoints have it, under the names of transformers' files.

The projections of attention lie in one piece and are cut. `text_projection` stays a matrix that the pooled text is
multiplied by, the other way round than the linear layer `text_projection.weight` of transformers. Torch-free.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from engine.weights.fused import cut_rows
from engine.weights.header import Header, TensorInfo

FIRST = "transformer.resblocks.0.ln_1.weight"  # its presence tells the layout
OUTER = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection",
    "text_projection.weight": "text_projection.weight",
}
_LAYERS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.(.+?)(?:\.|_(?=weight$|bias$))(weight|bias)$")

_TRANSFORMERS_LAYER = re.compile(r"text_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)$")


def in_transformers_names(header: Header, prefix: str) -> Header:
    """The text encoder under `prefix` alone, under the names of a transformers file."""
    tensors: dict[str, TensorInfo] = {}
    for name, info in header.under(prefix).items():
        tensors |= dict(_renamed(name, replace(info, source=info.source or prefix + name)))
    return replace(header, tensors=tensors)


def layer_name(name: str) -> str | None:
    """The name here of a tensor of a layer under transformers' name, but for the projections that lie in one piece."""
    found = _TRANSFORMERS_LAYER.match(name)
    part = found and next((old for old, new in _LAYERS.items() if new == found[2]), None)
    return f"transformer.resblocks.{found[1]}.{part}.{found[3]}" if found and part else None


def _renamed(name: str, info: TensorInfo) -> Iterator[tuple[str, TensorInfo]]:
    if name in OUTER:
        yield OUTER[name], info
        return
    found = _LAYER.match(name)
    if found is None:
        return  # logit_scale, which images are compared by
    number, part, leaf = found.groups()
    layer = f"text_model.encoder.layers.{number}"
    if part in _LAYERS:
        yield f"{layer}.{_LAYERS[part]}.{leaf}", info
    elif part == "attn.in_proj":
        width = info.shape[0] // 3
        for i, projection in enumerate(("q_proj", "k_proj", "v_proj")):
            yield f"{layer}.self_attn.{projection}.{leaf}", cut_rows(info, ((i * width, (i + 1) * width),))
