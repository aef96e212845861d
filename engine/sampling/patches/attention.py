"""Guidance away from a model whose self-attention in the UNet's middle is spoilt or followed: PAG and SAG."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.families.parts.patch import Guidance, Now, Patch
from engine.sampling.patches.unet import middle_self_attentions, processing

# An attention layer of diffusers is typed too loosely for a checker: its parts may be None in other models.
BLUR = 9  # kernel of SAG's Gaussian
ATTENDED = 1.0  # a cell that others attend to this much in sum is blurred


def perturbed_attention(scale: float) -> Patch:
    """Perturbed-Attention Guidance (https://arxiv.org/abs/2403.17377): each token attends to itself alone."""

    @contextmanager
    def acting(module: nn.Module, now: Now) -> Iterator[None]:
        with processing(middle_self_attentions(module), to_itself):
            yield

    def post(seen: Guidance, denoised: Tensor) -> Tensor:
        return denoised + (seen.cond - seen.again(acting)) * scale if scale else denoised

    return Patch("PerturbedAttentionGuidance", post=post)


def to_itself(attention: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return _out(attention, attention.to_v(hidden_states))


def self_attention_guidance(scale: float, blur_sigma: float) -> Patch:
    """Self-Attention Guidance (https://arxiv.org/abs/2210.00939): away from the negative estimate blurred where the
    middle of the UNet looks, put through the model once more."""
    attended: list[Tensor] = []

    def attend(now: Now, attention: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        query, key, value = (to(hidden_states) for to in (attention.to_q, attention.to_k, attention.to_v))
        batch, tokens, _ = query.shape
        query, key, value = (t.view(batch, tokens, attention.heads, -1).transpose(1, 2) for t in (query, key, value))
        weights = (query @ key.transpose(-2, -1) * attention.scale).float().softmax(dim=-1).to(value)
        if 1 in now.sides:
            each = batch // len(now.sides)
            start = now.sides.index(1) * each
            attended[:] = [weights[start : start + each].float().mean(dim=1).sum(dim=1)]  # (batch, tokens)
        return _out(attention, (weights @ value).transpose(1, 2).reshape(batch, tokens, -1))

    @contextmanager
    def acting(module: nn.Module, now: Now) -> Iterator[None]:
        def processor(attention: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return attend(now, attention, hidden_states, *args, **kwargs)

        with processing(middle_self_attentions(module)[:1], processor):
            yield

    def post(seen: Guidance, denoised: Tensor) -> Tensor:
        if not seen.has_uncond or not attended or min(denoised.shape[2:]) <= BLUR // 2:
            return denoised
        degraded = _blurred_where(seen.uncond, attended[0] > ATTENDED, blur_sigma)
        again = seen.again(x=degraded + seen.x - seen.uncond, negative=True)
        return denoised + (degraded - again) * scale

    return Patch("SelfAttentionGuidance", acting=acting, post=post, both_sides=True)


def _out(attention: Any, hidden_states: Tensor) -> Tensor:
    for layer in attention.to_out:
        hidden_states = layer(hidden_states)
    return hidden_states


def _blurred_where(latent: Tensor, mask: Tensor, sigma: float) -> Tensor:
    """mask: (batch, tokens) of the middle block."""
    height, width = latent.shape[-2:]
    rows = nearest_divisor(mask.shape[1], round(math.sqrt(height / width * mask.shape[1])))
    grid = mask.view(mask.shape[0], 1, rows, -1).to(latent)
    grid = functional.interpolate(grid, (height, width))
    return gaussian_blur(latent, sigma) * grid + latent * (1 - grid)


def nearest_divisor(total: int, near: int) -> int:
    """A divisor of total as close to `near` as there is one; the larger of two."""
    return min((d for d in range(1, total + 1) if total % d == 0), key=lambda d: (abs(d - near), -d))


def gaussian_blur(picture: Tensor, sigma: float) -> Tensor:
    """(batch, c, h, w) with mirrored borders; sigma 0 leaves it as it is."""
    if sigma == 0:
        return picture
    positions = torch.arange(BLUR, device=picture.device, dtype=picture.dtype) - BLUR // 2
    kernel = torch.exp(-0.5 * (positions / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = functional.pad(picture, [BLUR // 2] * 4, mode="reflect")
    channels = picture.shape[1]
    down = functional.conv2d(padded, kernel.view(1, 1, -1, 1).repeat(channels, 1, 1, 1), groups=channels)
    return functional.conv2d(down, kernel.view(1, 1, 1, -1).repeat(channels, 1, 1, 1), groups=channels)
