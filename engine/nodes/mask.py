"""Masks: make, change, turn into pictures and back. MASK is float32 (batch, height, width) in 0..1."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from engine.errors import GraphError
from engine.graph.limits import MAX_SIDE
from engine.graph.node import IMAGE, MASK, In, NodeContext, Out, node
from engine.nodes.image import preview_image

Size = Annotated[int, In("INT", default=512, min=1, max=MAX_SIDE, step=1)]
Offset = Annotated[int, In("INT", default=0, min=0, max=MAX_SIDE, step=1)]


class NothingLeft(GraphError):
    en = "A mask of {width} x {height} has nothing at {x}, {y}: choose an x and y that lie within it."
    zh = "{width} x {height} 的遮罩在 {x}, {y} 处没有内容：请选择位于其内部的 x 和 y。"


@node("SolidMask", title="SolidMask", title_zh="纯色遮罩", category="mask", outputs=[Out("MASK")])
def solid_mask(
    ctx: NodeContext,
    value: Annotated[float, In("FLOAT", default=1.0, min=0.0, max=1.0, step=0.01)],
    width: Size,
    height: Size,
) -> tuple[Tensor]:
    return (torch.full((1, height, width), value),)


@node("InvertMask", title="InvertMask", title_zh="反转遮罩", category="mask", outputs=[Out("MASK")])
def invert_mask(ctx: NodeContext, mask: MASK) -> tuple[Tensor]:
    return (1.0 - mask,)


@node("CropMask", title="CropMask", title_zh="裁剪遮罩", category="mask", outputs=[Out("MASK")])
def crop_mask(ctx: NodeContext, mask: MASK, x: Offset, y: Offset, width: Size, height: Size) -> tuple[Tensor]:
    whole = _batched(mask)
    if y >= whole.shape[1] or x >= whole.shape[2]:
        raise NothingLeft(x=x, y=y, width=whole.shape[2], height=whole.shape[1])
    return (whole[:, y : y + height, x : x + width],)


@node("ThresholdMask", title="ThresholdMask", title_zh="遮罩阈值", category="mask", outputs=[Out("MASK")])
def threshold_mask(
    ctx: NodeContext, mask: MASK, value: Annotated[float, In("FLOAT", default=0.5, min=0.0, max=1.0, step=0.01)]
) -> tuple[Tensor]:
    return ((mask > value).float(),)


@node("FeatherMask", title="FeatherMask", title_zh="羽化遮罩", category="mask", outputs=[Out("MASK")])
def feather_mask(
    ctx: NodeContext, mask: MASK, left: Offset, top: Offset, right: Offset, bottom: Offset
) -> tuple[Tensor]:
    """Fades out towards the sides. ComfyUI's right and bottom fade begins one line late and dims the first line
    instead; kept, so that masks are the same."""
    output = _batched(mask).clone()
    height, width = output.shape[1:]
    for x in range(min(left, width)):
        output[:, :, x] *= (x + 1) / min(left, width)
    for x in range(min(right, width)):
        output[:, :, -x] *= (x + 1) / min(right, width)
    for y in range(min(top, height)):
        output[:, y] *= (y + 1) / min(top, height)
    for y in range(min(bottom, height)):
        output[:, -y] *= (y + 1) / min(bottom, height)
    return (output,)


@node("GrowMask", title="GrowMask", title_zh="扩展遮罩", category="mask", outputs=[Out("MASK")])
def grow_mask(
    ctx: NodeContext,
    mask: MASK,
    expand: Annotated[int, In("INT", default=0, min=-MAX_SIDE, max=MAX_SIDE, step=1)],
    tapered_corners: Annotated[bool, In("BOOLEAN", default=True)],
) -> tuple[Tensor]:
    """By `expand` pixels; a negative number shrinks."""
    corner = 0 if tapered_corners else 1
    footprint = np.array([[corner, 1, corner], [1, 1, 1], [corner, 1, corner]])
    change = ndimage.grey_dilation if expand > 0 else ndimage.grey_erosion
    grown = []
    for one in _batched(mask).numpy():
        for _ in range(abs(expand)):
            ctx.interrupt_check()
            one = change(one, footprint=footprint)
        grown.append(torch.from_numpy(np.ascontiguousarray(one)))
    return (torch.stack(grown),)


@node("MaskToImage", title="Convert Mask to Image", title_zh="遮罩转图像", category="mask", outputs=[Out("IMAGE")])
def mask_to_image(ctx: NodeContext, mask: MASK) -> tuple[Tensor]:
    return (_batched(mask).unsqueeze(-1).expand(-1, -1, -1, 3),)


@node("ImageToMask", title="Convert Image to Mask", title_zh="图像转遮罩", category="mask", outputs=[Out("MASK")])
def image_to_mask(
    ctx: NodeContext, image: IMAGE, channel: Annotated[str, In(["red", "green", "blue", "alpha"])]
) -> tuple[Tensor]:
    return (image[..., ("red", "green", "blue", "alpha").index(channel)],)


@node("ImageColorToMask", title="ImageColorToMask", title_zh="颜色转遮罩", category="mask", outputs=[Out("MASK")])
def image_color_to_mask(
    ctx: NodeContext,
    image: IMAGE,
    color: Annotated[int, In("INT", default=0, min=0, max=0xFFFFFF, step=1, extra={"display": "color"})],
) -> tuple[Tensor]:
    """1 where the picture has exactly that colour."""
    levels = (image.clamp(0, 1) * 255).round().int()
    return (((levels[..., 0] << 16) + (levels[..., 1] << 8) + levels[..., 2] == color).float(),)


@node(
    "MaskPreview",
    title="Preview Mask",
    title_zh="预览遮罩",
    category="mask",
    description="Shows the masks without saving them.",
    output_node=True,
    hidden=["PROMPT", "EXTRA_PNGINFO"],
)
def mask_preview(ctx: NodeContext, mask: MASK) -> dict[str, Any]:
    return preview_image(ctx, mask_to_image(ctx, mask)[0])


def _batched(mask: Tensor) -> Tensor:
    return mask.reshape(-1, *mask.shape[-2:])
