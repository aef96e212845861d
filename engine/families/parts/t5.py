"""T5 text encoders of transformers (v1.1, gated): built on meta, run with weights and padding as ComfyUI has them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel

from engine.families.base import Padding
from engine.families.parts.clip import textual_inversion
from engine.families.parts.prompt import Text, Token, tokens_of
from engine.families.parts.t5_tokenizer import T5Tokenizer


def build(config: Mapping[str, Any]) -> T5EncoderModel:
    """The skeleton on meta. Its only embedding is `shared`, and its feed-forward layers look at no weight's type."""
    with torch.device("meta"):
        module = T5EncoderModel(T5Config(**config))
        for block in module.encoder.block:
            layer = cast(Any, block).layer[-1]
            layer.DenseReluDense = GatedDense(layer.DenseReluDense)
    del module.encoder.embed_tokens
    return module


class GatedDense(nn.Module):
    """transformers' T5DenseGatedActDense, which would round to the type in which `wo` is stored."""

    def __init__(self, dense: nn.Module) -> None:
        super().__init__()
        self.wi_0, self.wi_1, self.wo = (cast(nn.Module, getattr(dense, name)) for name in ("wi_0", "wi_1", "wo"))
        self.act = cast(nn.Module, dense.act)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.wo(self.act(self.wi_0(hidden_states)) * self.wi_1(hidden_states))


def encode_prompt(
    module: nn.Module,
    tokenizer: T5Tokenizer,
    text: Text,
    embeddings: Sequence[Path],
    padding: Padding,
    stop_at_layer: int | None = None,
) -> Tensor:
    """-> (1, tokens, width). Padding takes part as any token does. stop_at_layer: as of CLIP, -1 is the last.

    Weights scale the distance from what an empty prompt of that length gives at the same position.
    """
    model = cast(T5EncoderModel, module)

    def embed(name: str) -> list[Tensor] | None:
        return textual_inversion(embeddings, name, model.config.d_model)

    found = tokens_of(text, tokenizer, embed)
    tokens = padded(found, tokenizer, padding.length(len(found) + 1))
    weighted = any(token.weight != 1.0 for token in tokens)
    rows = [tokens, padded([], tokenizer, len(tokens))] if weighted else [tokens]
    hidden = run(model, _embedded(model, rows), stop_at_layer)
    if not weighted:
        return hidden
    weights = torch.tensor([token.weight for token in tokens]).to(hidden)[None, :, None]
    prompt, empty = hidden.split(1)
    return torch.where(weights == 1.0, prompt, (prompt - empty) * weights + empty)


def encode_captions(module: nn.Module, tokenizer: T5Tokenizer, captions: Sequence[str], length: int) -> Tensor:
    """Captions as they are, cut after length - 1 tokens; differentiable -> (n, length, width)."""
    model = cast(T5EncoderModel, module)
    rows = [[Token(i) for i in tokenizer.encode(caption)[: length - 1]] for caption in captions]
    return run(model, _embedded(model, [padded(row, tokenizer, length) for row in rows]))


def padded(tokens: Sequence[Token], tokenizer: T5Tokenizer, length: int) -> list[Token]:
    ended = [*tokens, Token(tokenizer.end)]
    return ended + [Token(tokenizer.pad)] * (length - len(ended))


def run(model: T5EncoderModel, embedded: Tensor, stop_at_layer: int | None = None) -> Tensor:
    """The normed state of the layer that is asked for. One that the model does not have means the last."""
    blocks = model.encoder.block
    count = len(blocks) + 1 + (stop_at_layer or -1)
    stack = _first(model.encoder, count) if 0 < count < len(blocks) else model.encoder
    return cast(Tensor, stack(inputs_embeds=embedded).last_hidden_state)


def _first(stack: nn.Module, count: int) -> nn.Module:
    """A stack of the first layers and the final norm, over the very same modules."""
    shorter = copy.copy(stack)
    blocks = cast(nn.ModuleList, stack.get_submodule("block"))
    shorter._modules = {**stack._modules, "block": blocks[:count]}
    return shorter


def _embedded(model: T5EncoderModel, rows: Sequence[Sequence[Token]]) -> Tensor:
    scale = model.encoder.final_layer_norm.weight
    ids = torch.tensor(
        [[token.id if token.vector is None else 0 for token in row] for row in rows], device=scale.device
    )
    embedded = model.shared(ids).to(scale.dtype)
    for i, row in enumerate(rows):
        for j, token in enumerate(row):
            if token.vector is not None:
                embedded[i, j] = token.vector.to(scale)
    return embedded
