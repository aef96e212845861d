"""Batches of pictures: taken apart, put together, repeated, stitched."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional

from engine.errors import GraphError
from engine.families.parts.resizing import resized
from engine.graph.node import IMAGE, In, NodeContext, Out, node
from engine.nodes.compositing import with_channels

Count = Annotated[int, In("INT", default=1, min=1, max=4096)]
COLOURS = {
    "white": (1.0, 1.0, 1.0),
    "black": (0.0, 0.0, 0.0),
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
}


GROWING = {"template": {"input": {"required": {"image": ["IMAGE", {}]}}, "prefix": "image", "min": 1, "max": 50}}


class UnevenSizes(GraphError):
    en = "Pictures of {first} and of {other} can't be one batch. Scale them to one size first (Upscale Image)."
    zh = "尺寸为 {first} 与 {other} 的图像不能合为一个批次。请先缩放到同一尺寸（缩放图像）。"


@node(
    "RebatchImages",
    title="Rebatch Images",
    title_zh="重组图像批次",
    category="image/batch",
    outputs=[Out("IMAGE", is_list=True)],
    input_is_list=True,
)
def rebatch_images(ctx: NodeContext, images: IMAGE, batch_size: Count) -> tuple[list[Tensor]]:
    """All pictures of a list of batches, `batch_size` to a batch. Every input comes as a list."""
    size = batch_size[0]  # type: ignore[index]
    single = [one for batch in images for one in batch.split(1)]
    return ([_joined(single[start : start + size]) for start in range(0, len(single), size)],)


@node("BatchImagesNode", title="Batch Images", title_zh="合并图像批次", category="image", outputs=[Out("IMAGE")])
def batch_images(
    ctx: NodeContext, images: Annotated[dict[str, Tensor], In("COMFY_AUTOGROW_V3", extra=GROWING)]
) -> tuple[Tensor]:
    """One batch of up to fifty pictures or batches. What has other proportions than the first is cut to them, what has
    another size scaled; where some have alpha, the others are opaque."""
    first, *others = images.values()
    height, width = first.shape[1:3]
    channels = max(image.shape[-1] for image in images.values())
    same = [
        image
        if image.shape[1:3] == (height, width)
        else resized(image.movedim(-1, 1), width, height, "bilinear", "center").movedim(1, -1)
        for image in (first, *others)
    ]
    return (torch.cat([with_channels(image, channels) for image in same]),)


@node(
    "RepeatImageBatch",
    title="RepeatImageBatch",
    title_zh="重复图像批次",
    category="image/batch",
    outputs=[Out("IMAGE")],
)
def repeat_image_batch(ctx: NodeContext, image: IMAGE, amount: Count) -> tuple[Tensor]:
    return (image.repeat(amount, 1, 1, 1),)


@node(
    "ImageFromBatch",
    title="ImageFromBatch",
    title_zh="从批次取图像",
    category="image/batch",
    outputs=[Out("IMAGE")],
)
def image_from_batch(
    ctx: NodeContext, image: IMAGE, batch_index: Annotated[int, In("INT", default=0, min=0, max=4095)], length: Count
) -> tuple[Tensor]:
    first = min(len(image) - 1, batch_index)
    return (image[first : first + length].clone(),)


@node("ImageStitch", title="Image Stitch", title_zh="拼接图像", category="image/transform", outputs=[Out("IMAGE")])
def image_stitch(
    ctx: NodeContext,
    image1: IMAGE,
    direction: Annotated[str, In(["right", "down", "left", "up"], default="right")],
    match_image_size: Annotated[bool, In("BOOLEAN", default=True)],
    spacing_width: Annotated[int, In("INT", default=0, min=0, max=1024, step=2)],
    spacing_color: Annotated[str, In(list(COLOURS), default="white")],
    image2: Annotated[Tensor | None, In("IMAGE")] = None,
) -> tuple[Tensor]:
    """The second on that side of the first: scaled to its height (or width), or each centred on the larger of the
    two."""
    if image2 is None:
        return (image1,)
    across = direction in ("left", "right")
    count = max(len(image1), len(image2))
    first, second = (_extended(image, count) for image in (image1, image2))
    if match_image_size:
        second = _matched(second, first, across)
    else:
        first, second = _centred(first, second, COLOURS[spacing_color], 1 if across else 2)
    channels = max(first.shape[-1], second.shape[-1])
    parts = [with_channels(first, channels), with_channels(second, channels)]
    if direction in ("left", "up"):
        parts.reverse()
    if spacing_width:
        width = spacing_width + spacing_width % 2
        shape = (count, first.shape[1], width) if across else (count, width, first.shape[2])
        colour = torch.tensor([*COLOURS[spacing_color], 1.0])[:channels]
        parts.insert(1, colour.expand(*shape, channels))
    return (torch.cat(parts, dim=2 if across else 1),)


def _joined(images: list[Tensor]) -> Tensor:
    sizes = [f"{image.shape[2]} x {image.shape[1]} x {image.shape[3]}" for image in images]
    if len(set(sizes)) > 1:
        raise UnevenSizes(first=sizes[0], other=next(size for size in sizes if size != sizes[0]))
    return torch.cat(images)


def _extended(images: Tensor, count: int) -> Tensor:
    """With the last picture repeated to `count`."""
    return torch.cat([images, images[-1:].expand(count - len(images), -1, -1, -1)])


def _matched(image: Tensor, other: Tensor, across: bool) -> Tensor:
    """Scaled to the other's height, or width."""
    aspect = image.shape[2] / image.shape[1]
    height, width = other.shape[1:3]
    height, width = (height, max(1, int(height * aspect))) if across else (max(1, int(width / aspect)), width)
    return resized(image.movedim(-1, 1), width, height, "lanczos", "disabled").movedim(1, -1)


def _centred(first: Tensor, second: Tensor, colour: tuple[float, ...], axis: int) -> tuple[Tensor, Tensor]:
    """Both as long along the axis as the longer one. The rim is white or black; black beside another colour."""
    grey = colour[0] if len(set(colour)) == 1 else 0.0
    longest = max(first.shape[axis], second.shape[axis])

    def centred(image: Tensor) -> Tensor:
        missing = longest - image.shape[axis]
        rim = (missing // 2, missing - missing // 2)
        return functional.pad(image, (0, 0, 0, 0, *rim) if axis == 1 else (0, 0, *rim), value=grey)

    return centred(first), centred(second)
