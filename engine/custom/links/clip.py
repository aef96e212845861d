"""A CLIP link as packs see it: tokens by encoder, as lists of (token, weight), and their encoding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
from torch import Tensor

from engine.custom.facade import within_a_call
from engine.custom.links import missing, public
from engine.errors import GraphError
from engine.families.base import Clip, Prompt, TextBatch
from engine.families.parts import clip as clip_part
from engine.families.parts.prompt import Token, tokens_of
from engine.families.parts.text_encoder import CLIP_G, CLIP_H, CLIP_L
from engine.nodes.conditioning import conditioning_of, encoded

Pairs = list[list[tuple[Any, ...]]]  # chunks of (token id or vector, weight)
_CLIPS = {encoder.name: encoder for encoder in (CLIP_L, CLIP_G, CLIP_H)}


class NotOffered(GraphError):
    en = "clip.{method} was asked for {option}, which Easel does not offer to node packs (docs/custom-nodes.md)."
    zh = "节点包调用 clip.{method} 时请求了 {option}，Easel 未向节点包提供（见 docs/custom-nodes.md）。"


@dataclass(frozen=True)
class PackClip(Clip):
    def clone(self) -> PackClip:
        return PackClip(**{item.name: getattr(self, item.name) for item in fields(self)})

    def clip_layer(self, layer_idx: int) -> None:
        """Changes this one, which is the pack's own."""
        object.__setattr__(self, "stop_at_layer", layer_idx)

    def tokenize(self, text: str, return_word_ids: bool = False, **options: Any) -> dict[str, Pairs]:
        """{encoder: chunks of (token id, or vector of a textual inversion, weight)}"""
        asked = [name for name, value in options.items() if value]
        if return_word_ids or asked:
            raise NotOffered(method="tokenize", option=", ".join(asked) or "return_word_ids")
        found = {}
        for name, tokenizer, config in zip(self.names, self.tokenizers, self.configs, strict=True):
            chunks = self._chunks(name, tokenizer, config, text)
            found[name] = [
                [(token.id if token.vector is None else token.vector, token.weight) for token in chunk]
                for chunk in chunks
            ]
        return found

    def encode_from_tokens(
        self, tokens: Mapping[str, Pairs], return_pooled: bool | str = False, return_dict: bool = False
    ) -> Any:
        """cond; (cond, pooled); or {"cond", "pooled_output", ...}, as asked."""
        batch = self._encoded(tokens)
        if return_dict:
            return {"cond": batch.cross, "pooled_output": batch.pooled, **batch.extra}
        return (batch.cross, batch.pooled) if return_pooled else batch.cross

    def encode_from_tokens_scheduled(
        self,
        tokens: Mapping[str, Pairs],
        unprojected: bool = False,
        add_dict: Mapping[str, Any] | None = None,
        show_pbar: bool = True,
    ) -> list[list[Any]]:
        """A CONDITIONING."""
        if unprojected:
            raise NotOffered(method="encode_from_tokens_scheduled", option="unprojected")
        return conditioning_of(self._encoded(tokens), **(add_dict or {}))

    def encode(self, text: str) -> Tensor:
        return self.encode_from_tokens(self.tokenize(text))

    def load_model(self, *_: Any) -> PackClip:
        """The studio loads what is used."""
        return self

    def __getattr__(self, name: str) -> Any:
        raise missing("A CLIP link", name, public(PackClip))

    def _chunks(self, name: str, tokenizer: Any, config: Mapping[str, Any], text: str) -> list[list[Token]]:
        if name in _CLIPS:
            return clip_part.prompt_chunks(config, tokenizer, text, self.embeddings, _CLIPS[name])

        def embed(inversion: str) -> list[Tensor] | None:
            return clip_part.textual_inversion(self.embeddings, inversion, int(config["d_model"]))

        return [[*tokens_of(text, tokenizer, embed), Token(tokenizer.end)]]

    def _encoded(self, tokens: Mapping[str, Pairs]) -> TextBatch:
        strange = sorted(set(tokens) - set(self.names))
        if strange:
            raise NotOffered(method="encode_from_tokens", option=f"tokens of the encoders {', '.join(strange)}")
        prompt = {name: [_tokens(chunk, self._end(name)) for chunk in chunks] for name, chunks in tokens.items()}
        return encoded(within_a_call("clip.encode_from_tokens"), self, cast(Prompt, prompt))

    def _end(self, name: str) -> Callable[[], int]:
        return lambda: int(self.tokenizers[self.names.index(name)].end)


def _tokens(chunk: Sequence[Sequence[Any]], end: Callable[[], int]) -> list[Token]:
    return [
        Token(end(), float(pair[1]), pair[0])
        if isinstance(pair[0], torch.Tensor)
        else Token(int(pair[0]), float(pair[1]))
        for pair in chunk
    ]
