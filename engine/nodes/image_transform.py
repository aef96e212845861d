"""Pictures turned, mirrored, fitted into a frame or to a longest side."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from engine.families.parts.resizing import resized
from engine.graph.limits import MAX_SIDE
from engine.graph.node import IMAGE, In, NodeContext, Out, node

TURNS = {"none": 0, "90 degrees": 1, "180 degrees": 2, "270 degrees": 3}  # clockwise
FLIPS = ("x-axis: vertically", "y-axis: horizontally")
Rotation = Annotated[str, In(list(TURNS))]
FlipMethod = Annotated[str, In(FLIPS)]
Side = Annotated[int, In("INT", default=512, min=1, max=MAX_SIDE, step=1)]


@node("ImageFlip", title="ImageFlip", title_zh="翻转图像", category="image/transform", outputs=[Out("IMAGE")])
def image_flip(ctx: NodeContext, image: IMAGE, flip_method: FlipMethod) -> tuple[Tensor]:
    return (image.flip(1 if flip_method == FLIPS[0] else 2),)


@node("ImageRotate", title="ImageRotate", title_zh="旋转图像", category="image/transform", outputs=[Out("IMAGE")])
def image_rotate(ctx: NodeContext, image: IMAGE, rotation: Rotation) -> tuple[Tensor]:
    return (image.rot90(TURNS[rotation], (2, 1)),)


@node(
    "ResizeAndPadImage",
    title="Resize And Pad Image",
    title_zh="缩放并填充图像",
    category="image/transform",
    outputs=[Out("IMAGE")],
)
def resize_and_pad_image(
    ctx: NodeContext,
    image: IMAGE,
    target_width: Side,
    target_height: Side,
    padding_color: Annotated[str, In(["white", "black"])],
    interpolation: Annotated[str, In(["area", "bicubic", "nearest-exact", "bilinear", "lanczos"])],
) -> tuple[Tensor]:
    """As large as it fits, in the middle of a frame of that size."""
    batch, height, width, channels = image.shape
    scale = min(target_width / width, target_height / height)
    width, height = max(1, int(width * scale)), max(1, int(height * scale))
    fitted = resized(image.movedim(-1, 1), width, height, interpolation, "disabled").movedim(1, -1)
    framed = torch.full((batch, target_height, target_width, channels), float(padding_color == "white"))
    y, x = (target_height - height) // 2, (target_width - width) // 2
    framed[:, y : y + height, x : x + width] = fitted
    return (framed,)


@node(
    "ImageScaleToMaxDimension",
    title="ImageScaleToMaxDimension",
    title_zh="按最长边缩放图像",
    category="image/upscaling",
    outputs=[Out("IMAGE")],
)
def image_scale_to_max_dimension(
    ctx: NodeContext,
    image: IMAGE,
    upscale_method: Annotated[str, In(["area", "lanczos", "bilinear", "nearest-exact", "bilinear", "bicubic"])],
    largest_size: Annotated[int, In("INT", default=512, min=0, max=MAX_SIDE, step=1)],
) -> tuple[Tensor]:
    """The longer side becomes `largest_size`; 0 leaves the picture as it is."""
    if largest_size == 0:
        return (image,)
    _, height, width, _ = image.shape
    longest = max(height, width)
    width, height = (max(1, round(side / longest * largest_size)) for side in (width, height))
    return (resized(image.movedim(-1, 1), width, height, upscale_method, "disabled").movedim(1, -1),)
