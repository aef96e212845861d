"""Vision encoders of CLIP and SigLIP in files: which it is, its config from shapes, the module's names. Torch-free.

Files have transformers' names, alone or beside a text encoder, or OpenCLIP's (`visual.`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

from engine.errors import FileError
from engine.weights.fused import cut_rows
from engine.weights.header import Header, TensorInfo

VisionKind = Literal["clip", "siglip"]
METADATA = "easel.clip_vision"  # JSON: fields of the config that shapes do not tell
HEADS = 16  # of every size that is in use: OpenAI's L, OpenCLIP's H and G, SigLIP's so400m
DEEPEST_OPENAI = 24  # layers; OpenCLIP's are deeper, and have another activation
MATRIX = "visual_projection.matrix"  # OpenCLIP's projection
SIZES = {(27, 14): 384}  # by patches a side and their size: SigLIP's so400m sees some pixels that fill no patch
PATCHES = "embeddings.patch_embedding.weight"
_OUTER = {
    "class_embedding": "vision_model.embeddings.class_embedding",
    "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "ln_post.weight": "vision_model.post_layernorm.weight",
    "ln_post.bias": "vision_model.post_layernorm.bias",
}
_LAYERS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.(.+?)(?:\.|_(?=weight$|bias$))(weight|bias)$")


class NoVisionEncoder(FileError):
    en = "{path} is not a vision encoder that is known here (CLIP or SigLIP): {reason}."
    zh = "{path} 不是此处已知的视觉编码器（CLIP 或 SigLIP）：{reason}。"


def in_transformers_names(header: Header) -> Header:
    """A file of OpenCLIP's names under transformers'; others as they are."""
    prefix = next((p for p in ("visual.", "embedder.model.visual.") if f"{p}conv1.weight" in header), None)
    if prefix is None:
        return header
    tensors: dict[str, TensorInfo] = {}
    for name, info in header.under(prefix).items():
        tensors |= dict(_renamed(name, replace(info, source=info.source or prefix + name)))
    return replace(header, tensors=tensors)


def vision_kind(header: Header) -> VisionKind:
    """By its tensors: CLIP has a token for the picture as a whole. Raises NoVisionEncoder."""
    if f"vision_model.{PATCHES}" not in header:
        raise NoVisionEncoder(path=header.path, reason=f"vision_model.{PATCHES} is missing")
    if len(header.shape(f"vision_model.{PATCHES}")) != 4:
        raise NoVisionEncoder(
            path=header.path, reason="its patches are no convolution (NaFlex), which is not read here"
        )
    return "clip" if "vision_model.embeddings.class_embedding" in header else "siglip"


def vision_config(header: Header, kind: VisionKind) -> dict[str, Any]:
    """Fields of CLIPVisionConfig or SiglipVisionConfig. Raises NoVisionEncoder."""
    tensors = header.under("vision_model.")
    try:
        width, _, patch, _ = tensors[PATCHES].shape
        positions = tensors["embeddings.position_embedding.weight"].shape[0]
        inner = tensors["encoder.layers.0.mlp.fc1.weight"].shape[0]
    except (KeyError, ValueError) as error:
        raise NoVisionEncoder(path=header.path, reason=f"{error} is missing") from error
    layers = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("encoder.layers."))
    side = round((positions - (kind == "clip")) ** 0.5)
    config: dict[str, Any] = {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "image_size": SIZES.get((side, patch), side * patch),
        "patch_size": patch,
    }
    if kind == "siglip":
        config |= {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "vision_use_head": False}
    else:
        config |= {"hidden_act": "quick_gelu" if layers <= DEEPEST_OPENAI else "gelu", "layer_norm_eps": 1e-5}
        projection = next((n for n in ("visual_projection.weight", MATRIX) if n in header), "")
        if not projection:
            raise NoVisionEncoder(path=header.path, reason="visual_projection.weight is missing")
        linear = projection.endswith(".weight")
        config |= {"projection_dim": header.shape(projection)[0 if linear else 1]}
        config |= {"projection": "linear" if linear else "matrix"}
    return config | _stated(header)


def module_name(name: str, kind: VisionKind) -> str | None:
    """The module's name of a tensor; None for what it does not have: text, SigLIP's head."""
    if kind == "siglip":
        inner = name.removeprefix("vision_model.")
        return inner if inner != name and not inner.startswith("head.") else None
    return name if name.startswith(("vision_model.", "visual_projection")) and "position_ids" not in name else None


def _stated(header: Header) -> dict[str, Any]:
    text = header.metadata.get(METADATA)
    if text is None:
        return {}
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise NoVisionEncoder(path=header.path, reason=f"its metadata {METADATA} is broken ({error})") from error


def _renamed(name: str, info: TensorInfo) -> Iterator[tuple[str, TensorInfo]]:
    if name in _OUTER or name == "proj":
        yield _OUTER.get(name, MATRIX), info
        return
    found = _LAYER.match(name)
    if found is None:
        return
    number, part, leaf = found.groups()
    layer = f"vision_model.encoder.layers.{number}"
    if part in _LAYERS:
        yield f"{layer}.{_LAYERS[part]}.{leaf}", info
    elif part == "attn.in_proj":
        width = info.shape[0] // 3
        for i, projection in enumerate(("q_proj", "k_proj", "v_proj")):
            yield f"{layer}.self_attn.{projection}.{leaf}", cut_rows(info, ((i * width, (i + 1) * width),))
