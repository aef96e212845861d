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
from engine.families.base import EmbeddingFolders
from engine.families.parts.prompt import Text, Token, chunks_of
from engine.families.parts.text_encoder import CLIP_L, TextEncoder
from engine.families.parts.tokenizer import ClipTokenizer
from engine.weights.load import open_header, read_tensors
from engine.workspace import inside

CHUNKS_AT_ONCE = 32  # a pasted book must not take all memory
Chunks = list[list[Token]]
log = logging.getLogger(__name__)


def build(config: Mapping[str, Any]) -> CLIPTextModel:
    """The skeleton on meta; its position_ids are real, since no file has them.

    `projection` in the config gives it one for the pooled text: "linear" as transformers' files have it, "matrix" as
    OpenCLIP's.
    """
    config = dict(config)
    projection = config.pop("projection", "")
    with torch.device("meta"):
        module = CLIPTextModel(CLIPTextConfig(**config))
        width, projected = module.config.hidden_size, cast(int, module.config.projection_dim)
        if projection == "linear":
            module.text_projection = nn.Linear(width, projected, bias=False)
        elif projection == "matrix":
            module.text_projection = nn.Parameter(torch.empty(width, projected))
    positions = torch.arange(module.config.max_position_embeddings).expand((1, -1))
    module.embeddings.register_buffer("position_ids", positions, persistent=False)
    return module


def prompt_chunks(
    config: Mapping[str, Any], tokenizer: ClipTokenizer, text: Text, embeddings: Sequence[Path], encoder: TextEncoder
) -> Chunks:
    """A prompt as chunks of 77 tokens with weights and textual inversions; what is in chunks already stays."""

    def embed(name: str) -> list[Tensor] | None:
        return textual_inversion(embeddings, name, config["hidden_size"], encoder.name)

    return chunks_of(text, tokenizer, embed, config["max_position_embeddings"], _pad(tokenizer, encoder))


def encode_chunks(
    module: nn.Module, tokenizer: ClipTokenizer, chunks: Chunks, stop_at_layer: int | None, encoder: TextEncoder
) -> tuple[Tensor, Tensor]:
    """-> ((1, 77 * chunks, width), (1, width)), the second of the first chunk.

    Weights scale the distance from what an empty prompt gives at the same position, as ComfyUI has it.
    """
    model = cast(CLIPTextModel, module)
    weighted = any(token.weight != 1.0 for chunk in chunks for token in chunk)
    batch = [*chunks, *_nothing(tokenizer, encoder, len(chunks[0]))] if weighted else chunks
    slices = [batch[i : i + CHUNKS_AT_ONCE] for i in range(0, len(batch), CHUNKS_AT_ONCE)]
    results = [run(model, *_inputs(model, part), stop_at_layer, encoder) for part in slices]
    hidden, pooled = (torch.cat(tensors) for tensors in zip(*results, strict=True))
    if weighted:
        weights = torch.tensor([[token.weight for token in chunk] for chunk in chunks]).to(hidden)[..., None]
        empty, hidden = hidden[-1:], hidden[:-1]
        hidden = torch.where(weights == 1.0, hidden, (hidden - empty) * weights + empty)
    return hidden.reshape(1, -1, hidden.shape[-1]), pooled[:1]


def same_count(chunks: Sequence[Chunks], tokenizers: Sequence[ClipTokenizer], encoders: Sequence[TextEncoder]) -> None:
    """Empty chunks behind the shorter ones, so that texts of several encoders have equal lengths."""
    longest = max(len(one) for one in chunks)
    for one, tokenizer, encoder in zip(chunks, tokenizers, encoders, strict=True):
        while len(one) < longest:
            one += _nothing(tokenizer, encoder, len(one[0]))


def encode_prompt(
    module: nn.Module,
    tokenizer: ClipTokenizer,
    text: Text,
    embeddings: Sequence[Path],
    stop_at_layer: int | None,
    encoder: TextEncoder = CLIP_L,
) -> tuple[Tensor, Tensor]:
    """The two above in one, for a single encoder."""
    chunks = prompt_chunks(cast(CLIPTextModel, module).config.to_dict(), tokenizer, text, embeddings, encoder)
    return encode_chunks(module, tokenizer, chunks, stop_at_layer, encoder)


def encode_captions(
    module: nn.Module,
    tokenizer: ClipTokenizer,
    captions: Sequence[str],
    stop_at_layer: int | None,
    encoder: TextEncoder = CLIP_L,
) -> tuple[Tensor, Tensor]:
    """Captions as they are, cut after 75 tokens; differentiable -> ((n, 77, width), (n, width))."""
    model = cast(CLIPTextModel, module)
    length = model.config.max_position_embeddings
    rows = []
    for caption in captions:
        tokens = [tokenizer.start, *tokenizer.encode(caption)[: length - 2], tokenizer.end]
        rows.append([*tokens, *[_pad(tokenizer, encoder)] * (length - len(tokens))])
    ids = torch.tensor(rows, device=model.embeddings.token_embedding.weight.device)
    return run(model, ids, model.embeddings.token_embedding(ids), stop_at_layer, encoder)


def run(
    model: CLIPTextModel, ids: Tensor, embedded: Tensor, stop_at_layer: int | None, encoder: TextEncoder
) -> tuple[Tensor, Tensor]:
    """The state of the layer that is asked for, or else of the one that the family reads; and the pooled text, which
    is what the last layer has at the end of the text, normed and projected.

    A layer that the model does not have means the last, normed, as in ComfyUI.
    """
    layers = model.encoder.layers
    asked = encoder.layer if stop_at_layer is None else stop_at_layer
    # diffusers leaves out the last layer of SD 2.x, which is never read
    depth = encoder.depth if len(layers) == encoder.depth - 1 else len(layers)
    last = -asked > depth or (stop_at_layer is None and asked == -1)
    count = len(layers) if last else min(len(layers), depth + 1 + asked)
    hidden = state = model.embeddings(inputs_embeds=embedded)
    length = hidden.shape[1]
    mask = torch.full((length, length), float("-inf"), device=hidden.device, dtype=hidden.dtype).triu(1)[None, None]
    for number, layer in enumerate(layers, 1):
        hidden = layer(hidden, mask)
        state = hidden if number == count else state
    normed = model.final_layer_norm(hidden)
    if last or encoder.normed:
        state = normed if count == len(layers) else model.final_layer_norm(state)
    ends = torch.eq(ids, cast(int, model.config.eos_token_id)).int().argmax(dim=1)
    pooled = normed[torch.arange(len(normed), device=normed.device), ends]
    return state, _projected(model, pooled)


def textual_inversion(folders: Sequence[Path], name: str, width: int, encoder: str = "l") -> list[Tensor] | None:
    """The vectors of an embedding file, in the layouts of A1111, kohya and diffusers. None, with a log line where there
    is a file that does not fit: a prompt with a bad embedding still makes a picture."""
    path = next((p for folder in folders for p in _candidates(folder, name) if p.is_file()), None)
    if path is None:
        return None
    try:
        allow_pickle = isinstance(folders, EmbeddingFolders) and folders.allow_pickle
        tensors = read_tensors(open_header(path, allow_pickle=allow_pickle), dtype=torch.float32)
    except EaselError as error:
        log.warning("the embedding %r can't be read: %s", name, error)
        return None
    best = next((tensors[k] for k in (f"clip_{encoder}", "emb_params", "string_to_param.*") if k in tensors), None)
    vectors = next(iter(tensors.values()), torch.empty(0)) if best is None else best
    vectors = vectors[None] if vectors.ndim == 1 else vectors
    if vectors.ndim != 2 or vectors.shape[1] != width:
        log.warning("the embedding %r is for another model: its shape is %s", name, tuple(vectors.shape))
        return None
    return list(vectors)


def _projected(model: CLIPTextModel, pooled: Tensor) -> Tensor:
    projection = getattr(model, "text_projection", None)
    if projection is None:
        return pooled
    return pooled @ projection if isinstance(projection, nn.Parameter) else cast(nn.Module, projection)(pooled)


def _pad(tokenizer: ClipTokenizer, encoder: TextEncoder) -> int:
    return tokenizer.end if encoder.pad == "end" else 0


def _nothing(tokenizer: ClipTokenizer, encoder: TextEncoder, length: int) -> Chunks:
    """The chunk of an empty prompt."""
    return chunks_of("", tokenizer, lambda name: None, length, _pad(tokenizer, encoder))


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
