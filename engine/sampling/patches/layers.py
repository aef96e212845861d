"""Skip-Layer Guidance: away from a transformer that leaves out some of its blocks (SD 3.5's and Flux' classes)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import GraphError
from engine.families.parts.patch import Acting, Guidance, Now, Patch
from engine.sampling.patches.unet import removing


class NoSuchLayer(GraphError):
    en = "The model has {count} {stack}, numbered from 0; there is no {layer}. Correct the list of layers."
    zh = "模型有 {count} 个 {stack}（从 0 开始编号），没有第 {layer} 个。请更正层列表。"


def skip_layers(
    double: Sequence[int], single: Sequence[int], scale: float, start_sigma: float, end_sigma: float, rescale: float
) -> Patch:
    """denoised + scale * (cond - cond without those blocks), while start_sigma >= sigma >= end_sigma. rescale (0 .. 1)
    brings the result back to the deviation of cond."""

    def post(seen: Guidance, denoised: Tensor) -> Tensor:
        if scale <= 0 or not end_sigma <= seen.sigma <= start_sigma:
            return denoised
        denoised = denoised + (seen.cond - seen.again(skipping(double, single))) * scale
        if rescale:
            denoised = denoised * (rescale * seen.cond.std() / denoised.std() + (1 - rescale))
        return denoised

    return Patch("SkipLayerGuidance", post=post)


def skip_layers_of_negative(
    double: Sequence[int], single: Sequence[int], start_sigma: float, end_sigma: float
) -> Patch:
    """The negative prompt alone is evaluated without those blocks, in the same call as the positive one."""

    def negative(now: Now) -> list[int]:
        return [i for i, side in enumerate(now.sides) if side == 1] if end_sigma <= now.sigma <= start_sigma else []

    return Patch("SkipLayerGuidanceDiTSimple", acting=skipping(double, single, negative))


def skipping(double: Sequence[int], single: Sequence[int], parts: Callable[[Now], list[int]] | None = None) -> Acting:
    """Those blocks hand on what they are given. parts(now) -> which of the equal parts of the batch skip; else all."""

    @contextmanager
    def acting(module: nn.Module, now: Now) -> Iterator[None]:
        def skip(layer: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
            given = inspect.signature(layer.forward).bind(*args, **kwargs).arguments
            text, picture = given.get("encoder_hidden_states"), given["hidden_states"]
            skipping = None if parts is None else parts(now)
            if skipping == []:
                return output
            if not isinstance(output, tuple):
                return _mixed(output, picture, skipping, len(now.sides))
            # diffusers' blocks give (text, picture); text is None behind the last block of SD 3
            kept = (None if output[0] is None else text, picture)
            return tuple(_mixed(new, old, skipping, len(now.sides)) for new, old in zip(output, kept, strict=True))

        layers = [*_layers(module, "transformer_blocks", double), *_layers(module, "single_transformer_blocks", single)]
        with removing(*(layer.register_forward_hook(skip, with_kwargs=True) for layer in layers)):
            yield

    return acting


def _mixed(new: Tensor | None, old: Tensor | None, skipping: list[int] | None, parts: int) -> Tensor | None:
    if new is None or old is None or skipping is None:
        return old
    chunks = list(new.chunk(parts))
    for i, chunk in enumerate(old.chunk(parts)):
        if i in skipping:
            chunks[i] = chunk
    return torch.cat(chunks)


def _layers(module: nn.Module, stack: str, numbers: Sequence[int]) -> list[nn.Module]:
    blocks = list(getattr(module, stack, ()))
    for number in numbers:
        if number >= len(blocks):
            raise NoSuchLayer(count=len(blocks), stack=stack, layer=number)
    return [blocks[number] for number in numbers]
