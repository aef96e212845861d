"""Latents cut, turned, joined and batched anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from engine.errors import GraphError
from engine.families.parts.resizing import repeated_to
from engine.graph.limits import MAX_SIDE
from engine.graph.node import LATENT, In, NodeContext, Out, node
from engine.nodes.image_transform import FLIPS, TURNS, FlipMethod, Rotation
from engine.nodes.latent import PIXELS_PER_CELL
from engine.nodes.latent_math import like

Latent = dict[str, Any]
TRANSFORM = "latent/transform"
AXES = {"x": -1, "y": -2, "t": -3}


class SidesDiffer(GraphError):
    en = (
        "Latents of the shapes {first} and {second} can't stand beside each other along {dim}: all other sides must be "
        "equal. Bring one to the size of the other with Upscale Latent, or use latents of one model."
    )
    zh = (
        "形状为 {first} 和 {second} 的潜变量无法沿 {dim} 拼接：其余各边必须相等。"
        "请用“潜变量放大”统一尺寸，或使用同一模型的潜变量。"
    )


@node("LatentFlip", title="Flip Latent", title_zh="翻转潜变量", category=TRANSFORM, outputs=[Out("LATENT")])
def latent_flip(ctx: NodeContext, samples: LATENT, flip_method: FlipMethod) -> tuple[Latent]:
    return ({**samples, "samples": samples["samples"].flip(2 if flip_method == FLIPS[0] else 3)},)


@node("LatentRotate", title="Rotate Latent", title_zh="旋转潜变量", category=TRANSFORM, outputs=[Out("LATENT")])
def latent_rotate(ctx: NodeContext, samples: LATENT, rotation: Rotation) -> tuple[Latent]:
    return ({**samples, "samples": samples["samples"].rot90(TURNS[rotation], (3, 2))},)


@node("LatentCrop", title="Crop Latent", title_zh="裁剪潜变量", category=TRANSFORM, outputs=[Out("LATENT")])
def latent_crop(
    ctx: NodeContext,
    samples: LATENT,
    width: Annotated[int, In("INT", default=512, min=64, max=MAX_SIDE, step=8)],
    height: Annotated[int, In("INT", default=512, min=64, max=MAX_SIDE, step=8)],
    x: Annotated[int, In("INT", default=0, min=0, max=MAX_SIDE, step=8)],
    y: Annotated[int, In("INT", default=0, min=0, max=MAX_SIDE, step=8)],
) -> tuple[Latent]:
    """At least 64 pixels are left, where there are as many."""
    whole = samples["samples"]
    x, y, width, height = (value // PIXELS_PER_CELL for value in (x, y, width, height))
    x, y = max(0, min(x, whole.shape[3] - 8)), max(0, min(y, whole.shape[2] - 8))
    return ({**samples, "samples": whole[:, :, y : y + height, x : x + width]},)


@node("LatentConcat", title="LatentConcat", title_zh="拼接潜变量", category="latent/advanced", outputs=[Out("LATENT")])
def latent_concat(
    ctx: NodeContext, samples1: LATENT, samples2: LATENT, dim: Annotated[str, In(["x", "-x", "y", "-y", "t", "-t"])]
) -> tuple[Latent]:
    """The second behind the first along an axis, before it with a minus."""
    first, second = samples1["samples"], samples2["samples"]
    axis = AXES[dim.removeprefix("-")] % first.ndim
    if first.ndim != second.ndim or any(first.shape[i] != second.shape[i] for i in range(1, first.ndim) if i != axis):
        raise SidesDiffer(dim=dim, first=tuple(first.shape), second=tuple(second.shape))
    parts = [first, repeated_to(second, len(first))]
    if dim.startswith("-"):
        parts.reverse()
    return ({**samples1, "samples": torch.cat(parts, dim=axis)},)


@node("LatentCut", title="LatentCut", title_zh="截取潜变量", category="latent/advanced", outputs=[Out("LATENT")])
def latent_cut(
    ctx: NodeContext,
    samples: LATENT,
    dim: Annotated[str, In(["x", "y", "t"])],
    index: Annotated[int, In("INT", default=0, min=-MAX_SIDE, max=MAX_SIDE, step=1)],
    amount: Annotated[int, In("INT", default=1, min=1, max=MAX_SIDE, step=1)],
) -> tuple[Latent]:
    """`amount` cells from `index` on; a negative index counts from the end."""
    whole, axis = samples["samples"], AXES[dim]
    size = whole.shape[axis]
    start = min(index, size - 1) if index >= 0 else max(0, size + index)
    return ({**samples, "samples": whole.narrow(axis, start, min(amount, size - start))},)


@node("LatentBatch", title="LatentBatch", title_zh="合并潜变量批次", category="latent/batch", outputs=[Out("LATENT")])
def latent_batch(ctx: NodeContext, samples1: LATENT, samples2: LATENT) -> tuple[Latent]:
    """One batch of both, the second scaled to the size of the first. Each keeps its places, and so its noise."""
    first = samples1["samples"]
    second = like(first, samples2["samples"], batch=False)
    places = [*_places(samples1), *_places(samples2)]
    return ({**samples1, "samples": torch.cat((first, second)), "batch_index": places},)


@node(
    "LatentBatchSeedBehavior",
    title="LatentBatchSeedBehavior",
    title_zh="潜变量批次种子方式",
    category="latent/advanced",
    outputs=[Out("LATENT")],
)
def latent_batch_seed_behavior(
    ctx: NodeContext, samples: LATENT, seed_behavior: Annotated[str, In(["random", "fixed"], default="fixed")]
) -> tuple[Latent]:
    """fixed: all of the batch get the noise of its first; random: each its own."""
    if seed_behavior == "random":
        return ({name: value for name, value in samples.items() if name != "batch_index"},)
    first = (samples.get("batch_index") or [0])[0]
    return ({**samples, "batch_index": [first] * len(samples["samples"])},)


@node(
    "RebatchLatents",
    title="Rebatch Latents",
    title_zh="重组潜变量批次",
    category="latent/batch",
    outputs=[Out("LATENT", is_list=True)],
    input_is_list=True,
)
def rebatch_latents(
    ctx: NodeContext,
    latents: Annotated[list[Latent], In("LATENT")],
    batch_size: Annotated[int, In("INT", default=1, min=1, max=4096)],
) -> tuple[list[Latent]]:
    """All of a list of batches, `batch_size` to a batch; a latent of another size begins a new one. Places are counted
    through the list, so that no two get the same noise. Every input comes as a list."""
    size: int = batch_size[0]  # type: ignore[index]
    runs: list[list[_One]] = []
    for one in _singles(latents):
        if not runs or len(runs[-1]) == size or runs[-1][-1].samples.shape != one.samples.shape:
            runs.append([])
        runs[-1].append(one)
    return ([_batch(run) for run in runs],)


@dataclass(frozen=True)
class _One:
    samples: Tensor
    mask: Tensor | None
    place: int


def _singles(latents: list[Latent]) -> Iterator[_One]:
    done = 0
    for latent in latents:
        samples, mask = latent["samples"], latent.get("noise_mask")
        places = latent.get("batch_index") or range(done, done + len(samples))
        masks = [None] * len(samples) if mask is None else repeated_to(mask, len(samples)).split(1)
        for one, own, place in zip(samples.split(1), masks, places, strict=False):
            yield _One(one, own, place)
        done += len(samples)


def _batch(run: list[_One]) -> Latent:
    batch: Latent = {"samples": torch.cat([one.samples for one in run]), "batch_index": [one.place for one in run]}
    shape = next((one.mask.shape for one in run if one.mask is not None), None)
    if shape is not None:
        masks = [torch.ones(shape) if one.mask is None else _sized(one.mask, shape) for one in run]
        batch["noise_mask"] = torch.cat(masks)
    return batch


def _sized(mask: Tensor, shape: torch.Size) -> Tensor:
    if mask.shape == shape:
        return mask
    return torch.nn.functional.interpolate(mask.reshape(1, 1, *mask.shape[-2:]), size=shape[-2:], mode="bilinear")


def _places(latent: Latent) -> list[int]:
    return list(latent.get("batch_index") or range(len(latent["samples"])))
