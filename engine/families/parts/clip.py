"""CLIP text encoders of transformers: built on meta, run with weights, clip skip and textual inversions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from engine.errors import EaselError
from engine.families.parts.prompt import Token, chunks_of
from engine.families.parts.tokenizer import ClipTokenizer
from engine.weights.load import open_header, read_tensors
from engine.workspace import inside

CHUNKS_AT_ONCE = 32  # a pasted book must not take all memory
log = logging.getLogger(__name__)


def build(config: Mapping[str, Any]) -> CLIPTextModel:
    """The skeleton on meta; its position_ids are real, since no file has them."""
    with torch.device("meta"):
        module = CLIPTextModel(CLIPTextConfig(**config))
    positions = torch.arange(module.config.max_position_embeddings).expand((1, -1))
    module.embeddings.register_buffer("position_ids", positions, persistent=False)
    return module


def encode_prompt(
    module: nn.Module, tokenizer: ClipTokenizer, text: str, embeddings: Sequence[Path], stop_at_layer: int | None
) -> tuple[Tensor, Tensor]:
    """-> ((1, 77 * chunks, width), (1, width)).

    Weights scale the distance from what an empty prompt gives at the same position, as ComfyUI has it.
    """
    model = cast(CLIPTextModel, module)
    width, length = model.config.hidden_size, model.config.max_position_embeddings

    def embed(name: str) -> list[Tensor] | None:
        return textual_inversion(embeddings, name, width)

    chunks = chunks_of(text, tokenizer, embed, length)
    weighted = any(token.weight != 1.0 for chunk in chunks for token in chunk)
    batch = [*chunks, *chunks_of("", tokenizer, embed, length)] if weighted else chunks
    slices = [batch[i : i + CHUNKS_AT_ONCE] for i in range(0, len(batch), CHUNKS_AT_ONCE)]
    results = [run(model, *_inputs(model, part), stop_at_layer) for part in slices]
    hidden, pooled = (torch.cat(tensors) for tensors in zip(*results, strict=True))
    if weighted:
        weights = torch.tensor([[token.weight for token in chunk] for chunk in chunks]).to(hidden)[..., None]
        empty, hidden = hidden[-1:], hidden[:-1]
        hidden = torch.where(weights == 1.0, hidden, (hidden - empty) * weights + empty)
    return hidden.reshape(1, -1, width), pooled[:1]


def encode_captions(
    module: nn.Module, tokenizer: ClipTokenizer, captions: Sequence[str], stop_at_layer: int | None
) -> tuple[Tensor, Tensor]:
    """Captions as they are, cut after 75 tokens; differentiable -> ((n, 77, width), (n, width))."""
    model = cast(CLIPTextModel, module)
    length = model.config.max_position_embeddings
    rows = []
    for caption in captions:
        tokens = tokenizer.encode(caption)[: length - 2]
        rows.append([tokenizer.start, *tokens, *[tokenizer.end] * (length - 1 - len(tokens))])
    ids = torch.tensor(rows, device=model.embeddings.token_embedding.weight.device)
    return run(model, ids, model.embeddings.token_embedding(ids), stop_at_layer)


def run(model: CLIPTextModel, ids: Tensor, embedded: Tensor, stop_at_layer: int | None) -> tuple[Tensor, Tensor]:
    """Hidden states of the layer asked for (-1 is the last) after the final norm, and the one at the end of the text.

    Layers after that one are not run. A layer that the model does not have means the last, as in ComfyUI.
    """
    layers = model.encoder.layers
    count = len(layers) if stop_at_layer is None or -stop_at_layer > len(layers) else len(layers) + 1 + stop_at_layer
    hidden = model.embeddings(inputs_embeds=embedded)
    length = hidden.shape[1]
    mask = torch.full((length, length), float("-inf"), device=hidden.device, dtype=hidden.dtype).triu(1)[None, None]
    for layer in layers[:count]:
        hidden = layer(hidden, mask)
    hidden = model.final_layer_norm(hidden)
    ends = torch.eq(ids, cast(int, model.config.eos_token_id)).int().argmax(dim=1)
    return hidden, hidden[torch.arange(len(hidden), device=hidden.device), ends]


def textual_inversion(folders: Sequence[Path], name: str, width: int) -> list[Tensor] | None:
    """The vectors of an embedding file, in the layouts of A1111, kohya and diffusers. None, with a log line where there
    is a file that does not fit: a prompt with a bad embedding still makes a picture."""
    path = next((p for folder in folders for p in _candidates(folder, name) if p.is_file()), None)
    if path is None:
        return None
    try:
        tensors = read_tensors(open_header(path), dtype=torch.float32)
    except EaselError as error:
        log.warning("the embedding %r can't be read: %s", name, error)
        return None
    best = next((tensors[k] for k in ("emb_params", "string_to_param.*", "clip_l") if k in tensors), None)
    vectors = next(iter(tensors.values()), torch.empty(0)) if best is None else best
    vectors = vectors[None] if vectors.ndim == 1 else vectors
    if vectors.ndim != 2 or vectors.shape[1] != width:
        log.warning("the embedding %r is for another model: its shape is %s", name, tuple(vectors.shape))
        return None
    return list(vectors)


def _candidates(folder: Path, name: str) -> list[Path]:
    try:
        return [inside(folder, name + suffix) for suffix in ("", ".safetensors", ".pt", ".bin")] if name else []
    except EaselError:
        return []


def _inputs(model: CLIPTextModel, chunks: Sequence[Sequence[Token]]) -> tuple[Tensor, Tensor]:
    weight = model.embeddings.token_embedding.weight
    ids = torch.tensor([[t.id if t.vector is None else -1 for t in chunk] for chunk in chunks], device=weight.device)
    embedded = model.embeddings.token_embedding(ids.clamp(min=0))
    for row, chunk in enumerate(chunks):
        for column, token in enumerate(chunk):
            if token.vector is not None:
                embedded[row, column] = token.vector.to(weight)
    return ids, embedded
