"""The demo model's text encoder, taught alone which word belongs to what before the UNet sees it.

Without this "red star, blue background" stays a bag of words: shape and count are learned, colours are a coin flip
between figure and ground. Linear heads read the attributes at a random position from the end-of-text token on, so that
every padded position carries the whole caption; they stay on, weakly, while the UNet trains.
"""

from __future__ import annotations

import random
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from studio.demo.making.muon import MuonAdamW
from studio.demo.making.samples import ATTRIBUTES, UNKNOWN, Sample, sample
from studio.demo.making.vocabulary import MAX_LENGTH

WIDTH = 64


class AttributeHeads(nn.Module):
    """Reads every attribute of the captioned picture linearly from the text encoder's hidden states."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(WIDTH, sum(map(len, ATTRIBUTES.values())))

    def forward(self, hidden: Tensor, ids: Tensor, targets: Tensor, eos: int) -> tuple[Tensor, dict[str, float]]:
        """Sum of the cross entropies, and the accuracy of each attribute; hidden is (batch, 77, width)."""
        ends = (ids == eos).int().argmax(1)
        positions = ends + (torch.rand(len(ends)) * (MAX_LENGTH - ends)).long()
        logits = self.last(hidden[torch.arange(len(hidden)), positions])
        loss, accuracy = logits.new_zeros(()), {}
        parts = logits.split([len(values) for values in ATTRIBUTES.values()], dim=1)
        for name, part, target in zip(ATTRIBUTES, parts, targets.unbind(1), strict=True):
            known = target != UNKNOWN
            if known.any():
                loss = loss + F.cross_entropy(part[known], target[known])
                accuracy[name] = float((part[known].argmax(1) == target[known]).float().mean())
        return loss, accuracy


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained encoder. CLIP's 0.02 for positions beside 0.3 for tokens would drown the order of the words."""
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=MAX_LENGTH,
            projection_dim=WIDTH,
            hidden_act="quick_gelu",
            **special_ids(tokenizer),
        )
    )
    for name, param in text.named_parameters():
        if "token_embedding" in name:
            nn.init.normal_(param, std=0.3)
        elif "position_embedding" in name:
            nn.init.normal_(param, std=0.2)
    return text


def special_ids(tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """The ids that CLIPTextConfig wants to know."""
    return {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}


def pretrain(text: CLIPTextModel, heads: AttributeHeads, tokenizer: CLIPTokenizer, steps: int, seed: int = 3) -> None:
    """Trains encoder and heads on captions alone, 48 a step."""
    rng = random.Random(seed)
    optimizer = MuonAdamW([text, heads], lr=2e-3, adam_ratio=1.0)
    start = time.time()
    for step in range(steps):
        samples = [sample(rng) for _ in range(48)]
        ids = tokenize(tokenizer, [one.caption(rng) for one in samples])
        hidden = text(ids).last_hidden_state
        loss, accuracy = heads(hidden, ids, targets_of(samples), special_ids(tokenizer)["eos_token_id"])
        optimizer.step(loss, min(1.0, (step + 1) / 50) * (1.01 - step / steps))
        if (step + 1) % 100 == 0:
            shown = " ".join(f"{name} {value:.2f}" for name, value in accuracy.items())
            print(f"text {step + 1}/{steps} loss {loss:.3f} {time.time() - start:.0f} s {shown}", flush=True)


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Token ids, padded to (batch, 77)."""
    return tokenizer(
        captions, padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
    ).input_ids


def targets_of(samples: list[Sample]) -> Tensor:
    """Attribute indices, (batch, attributes)."""
    return torch.tensor([one.targets() for one in samples])
