"""What can be done to pictures without a model: batch, blend, blur, sharpen, crop, pad. IMAGE is (b, h, w, channel)."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional

from engine.errors import GraphError
from engine.families.parts.resizing import IMAGE_METHODS, resized
from engine.graph.limits import MAX_SIDE
from engine.graph.node import IMAGE, In, NodeContext, Out, node

Radius = Annotated[int, In("INT", default=1, min=1, max=31, step=1)]
Size = Annotated[int, In("INT", default=512, min=1, max=MAX_SIDE, step=1)]
Offset = Annotated[int, In("INT", default=0, min=0, max=MAX_SIDE, step=1)]
Padding = Annotated[int, In("INT", default=0, min=0, max=MAX_SIDE, step=8)]


class RadiusTooLarge(GraphError):
    en = "A radius of {radius} is too large for {width} x {height}: choose one smaller than the shorter side."
    zh = "半径 {radius} 对 {width} x {height} 来说过大：请选择小于短边的半径。"


@node("ImageBatch", title="Batch Images", title_zh="合并图像批次", category="image", outputs=[Out("IMAGE")])
def image_batch(ctx: NodeContext, image1: IMAGE, image2: IMAGE) -> tuple[Tensor]:
    """The second is brought to the size of the first."""
    return (torch.cat((image1, _sized_like(image1, image2, "bilinear"))),)


@node("ImageBlend", title="Image Blend", title_zh="图像混合", category="image/postprocessing", outputs=[Out("IMAGE")])
def image_blend(
    ctx: NodeContext,
    image1: IMAGE,
    image2: IMAGE,
    blend_factor: Annotated[float, In("FLOAT", default=0.5, min=0.0, max=1.0, step=0.01)],
    blend_mode: Annotated[str, In(["normal", "multiply", "screen", "overlay", "soft_light", "difference"])],
) -> tuple[Tensor]:
    other = _sized_like(image1, image2, "bicubic")
    blended = _blended(image1, other, blend_mode)
    return ((image1 * (1 - blend_factor) + blended * blend_factor).clamp(0, 1),)


@node("ImageBlur", title="Image Blur", title_zh="图像模糊", category="image/postprocessing", outputs=[Out("IMAGE")])
def image_blur(
    ctx: NodeContext,
    image: IMAGE,
    blur_radius: Radius,
    sigma: Annotated[float, In("FLOAT", default=1.0, min=0.1, max=10.0, step=0.1)],
) -> tuple[Tensor]:
    return (filtered(image, gaussian(blur_radius, sigma)),)


@node(
    "ImageSharpen", title="Image Sharpen", title_zh="图像锐化", category="image/postprocessing", outputs=[Out("IMAGE")]
)
def image_sharpen(
    ctx: NodeContext,
    image: IMAGE,
    sharpen_radius: Radius,
    sigma: Annotated[float, In("FLOAT", default=1.0, min=0.1, max=10.0, step=0.01)],
    alpha: Annotated[float, In("FLOAT", default=1.0, min=0.0, max=5.0, step=0.01)],
) -> tuple[Tensor]:
    """Takes off the blurred picture, ten times `alpha`, and keeps the sum of the kernel at one."""
    kernel = gaussian(sharpen_radius, sigma) * -(alpha * 10)
    kernel[sharpen_radius, sharpen_radius] += 1.0 - kernel.sum()
    return (filtered(image, kernel).clamp(0, 1),)


@node("ImageCrop", title="Image Crop", title_zh="裁剪图像", category="image/transform", outputs=[Out("IMAGE")])
def image_crop(ctx: NodeContext, image: IMAGE, width: Size, height: Size, x: Offset, y: Offset) -> tuple[Tensor]:
    x, y = min(x, image.shape[2] - 1), min(y, image.shape[1] - 1)
    return (image[:, y : y + height, x : x + width],)


@node(
    "ImagePadForOutpaint",
    title="Pad Image for Outpainting",
    title_zh="外扩画布",
    category="image",
    outputs=[Out("IMAGE"), Out("MASK")],
)
def image_pad_for_outpaint(
    ctx: NodeContext,
    image: IMAGE,
    left: Padding,
    top: Padding,
    right: Padding,
    bottom: Padding,
    feathering: Annotated[int, In("INT", default=40, min=0, max=MAX_SIDE, step=1)],
) -> tuple[Tensor, Tensor]:
    """A grey rim, and a mask that is 1 on it and fades into the picture over `feathering` pixels."""
    batch, height, width, channels = image.shape
    padded = torch.full((batch, height + top + bottom, width + left + right, channels), 0.5)
    padded[:, top : top + height, left : left + width] = image
    mask = torch.ones(padded.shape[1:3])
    mask[top : top + height, left : left + width] = 0.0
    if feathering and feathering * 2 < min(height, width):
        rows, columns = torch.arange(height), torch.arange(width)
        far = torch.tensor(MAX_SIDE)
        down = torch.minimum(rows if top else far, height - rows if bottom else far)
        across = torch.minimum(columns if left else far, width - columns if right else far)
        distance = torch.minimum(down.expand(height)[:, None], across.expand(width)[None])
        mask[top : top + height, left : left + width] = ((feathering - distance).clamp(min=0) / feathering) ** 2
    return padded, mask.unsqueeze(0)


@node(
    "ImageScaleToTotalPixels",
    title="Scale Image to Total Pixels",
    title_zh="缩放至总像素",
    category="image/upscaling",
    outputs=[Out("IMAGE")],
)
def image_scale_to_total_pixels(
    ctx: NodeContext,
    image: IMAGE,
    upscale_method: Annotated[str, In(IMAGE_METHODS)],
    megapixels: Annotated[float, In("FLOAT", default=1.0, min=0.01, max=16.0, step=0.01)],
) -> tuple[Tensor]:
    """A megapixel is 1024 x 1024."""
    _, height, width, _ = image.shape
    scale = math.sqrt(int(megapixels * 1024 * 1024) / (width * height))
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    return (resized(image.movedim(-1, 1), width, height, upscale_method, "disabled").movedim(1, -1),)


def _sized_like(image: Tensor, other: Tensor, method: str) -> Tensor:
    """`other` with the size and the channels of `image`; an alpha channel that is missing is opaque."""
    if other.shape[1:3] != image.shape[1:3]:
        other = resized(other.movedim(-1, 1), image.shape[2], image.shape[1], method, "center").movedim(1, -1)
    if other.shape[-1] < image.shape[-1]:
        other = functional.pad(other, (0, image.shape[-1] - other.shape[-1]), value=1.0)
    return other[..., : image.shape[-1]]


def _blended(a: Tensor, b: Tensor, mode: str) -> Tensor:
    match mode:
        case "multiply":
            return a * b
        case "screen":
            return 1 - (1 - a) * (1 - b)
        case "overlay":
            return torch.where(a <= 0.5, 2 * a * b, 1 - 2 * (1 - a) * (1 - b))
        case "soft_light":  # W3C compositing, "soft-light"
            light = torch.where(a <= 0.25, ((16 * a - 12) * a + 4) * a, a.clamp(min=0).sqrt())
            return torch.where(b <= 0.5, a - (1 - 2 * b) * a * (1 - a), a + (2 * b - 1) * (light - a))
        case "difference":
            return a - b
    return b


def gaussian(radius: int, sigma: float) -> Tensor:
    """(2 radius + 1) squared, over -1..1 whatever the radius is, with sum 1."""
    line = torch.linspace(-1, 1, 2 * radius + 1)
    kernel = torch.exp(-(line[:, None] ** 2 + line[None] ** 2) / (2 * sigma**2))
    return kernel / kernel.sum()


def filtered(image: Tensor, kernel: Tensor) -> Tensor:
    """(batch, height, width, channel), mirrored at its edges. Raises RadiusTooLarge."""
    radius, channels = kernel.shape[0] // 2, image.shape[-1]
    if radius >= min(image.shape[1:3]):
        raise RadiusTooLarge(radius=radius, width=image.shape[2], height=image.shape[1])
    padded = functional.pad(image.movedim(-1, 1), (radius, radius, radius, radius), mode="reflect")
    weight = kernel.expand(channels, 1, *kernel.shape)
    return functional.conv2d(padded, weight, groups=channels).movedim(1, -1)
