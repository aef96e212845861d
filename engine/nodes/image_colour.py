"""What is done to the values of pixels: noise, palettes, brightness and colour apart, morphology."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from engine.graph.node import IMAGE, In, NodeContext, Out, node

FAR = 1e4  # what lies outside a picture for morphology: never the largest (or smallest) of a window


@node("ImageAddNoise", title="ImageAddNoise", title_zh="添加噪点", category="image", outputs=[Out("IMAGE")])
def image_add_noise(
    ctx: NodeContext,
    image: IMAGE,
    seed: Annotated[int, In("INT", default=0, min=0, max=2**64 - 1, control_after_generate=True)],
    strength: Annotated[float, In("FLOAT", default=0.5, min=0.0, max=1.0, step=0.01)],
) -> tuple[Tensor]:
    noise = torch.randn(image.shape, generator=torch.Generator("cpu").manual_seed(seed))
    return ((image + strength * noise).clamp(0, 1),)


@node(
    "ImageQuantize",
    title="ImageQuantize",
    title_zh="减少图像颜色",
    category="image/postprocessing",
    outputs=[Out("IMAGE")],
)
def image_quantize(
    ctx: NodeContext,
    image: IMAGE,
    colors: Annotated[int, In("INT", default=256, min=1, max=256, step=1)],
    dither: Annotated[str, In(["none", "floyd-steinberg", "bayer-2", "bayer-4", "bayer-8", "bayer-16"])],
) -> tuple[Tensor]:
    """A palette of that many colours, chosen for each picture."""
    done = []
    for one in image:
        ctx.interrupt_check()
        picture = Image.fromarray((one[..., :3].clamp(0, 1) * 255).to(torch.uint8).numpy())
        palette = picture.quantize(colors=colors)
        spread = Image.Dither.FLOYDSTEINBERG if dither == "floyd-steinberg" else Image.Dither.NONE
        if dither.startswith("bayer"):
            picture = _ordered(picture, int(dither.removeprefix("bayer-")), len(palette.getpalette() or [0, 0, 0]) // 3)
        reduced = picture.quantize(palette=palette, dither=spread).convert("RGB")
        done.append(torch.from_numpy(np.asarray(reduced).astype(np.float32) / 255))
    return (torch.stack(done),)


@node(
    "ImageRGBToYUV",
    title="ImageRGBToYUV",
    title_zh="RGB 转 YUV",
    category="image/batch",
    outputs=[Out("IMAGE", "Y"), Out("IMAGE", "U"), Out("IMAGE", "V")],
)
def image_rgb_to_yuv(ctx: NodeContext, image: IMAGE) -> tuple[Tensor, Tensor, Tensor]:
    """Brightness and two differences of colour (JPEG's YCbCr, 0.5 is none), each as a grey picture."""
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    u, v = (blue - y) * 0.564 + 0.5, (red - y) * 0.713 + 0.5
    return _grey(y), _grey(u), _grey(v)


@node("ImageYUVToRGB", title="ImageYUVToRGB", title_zh="YUV 转 RGB", category="image/batch", outputs=[Out("IMAGE")])
def image_yuv_to_rgb(ctx: NodeContext, Y: IMAGE, U: IMAGE, V: IMAGE) -> tuple[Tensor]:
    y, u, v = (part.mean(dim=-1) for part in (Y, U, V))
    u, v = u - 0.5, v - 0.5
    return (torch.stack((y + 1.403 * v, y - 0.714 * v - 0.344 * u, y + 1.773 * u), dim=-1),)


@node(
    "Morphology",
    title="ImageMorphology",
    title_zh="形态学处理",
    category="image/postprocessing",
    outputs=[Out("IMAGE")],
)
def morphology(
    ctx: NodeContext,
    image: IMAGE,
    operation: Annotated[str, In(["erode", "dilate", "open", "close", "gradient", "bottom_hat", "top_hat"])],
    kernel_size: Annotated[int, In("INT", default=3, min=3, max=999, step=1)],
) -> tuple[Tensor]:
    """With a square; what lies outside the picture does not count."""
    x = image.movedim(-1, 1)

    def dilated(pixels: Tensor) -> Tensor:
        before, behind = kernel_size // 2, kernel_size - kernel_size // 2 - 1
        for axis in (-1, -2):  # one axis after the other is the same as the square, and linear in its size
            rim = (before, behind, 0, 0) if axis == -1 else (0, 0, before, behind)
            window = (1, kernel_size) if axis == -1 else (kernel_size, 1)
            pixels = functional.max_pool2d(functional.pad(pixels, rim, value=-FAR), window, stride=1)
        return pixels

    def eroded(pixels: Tensor) -> Tensor:
        return -dilated(-pixels)

    match operation:
        case "erode":
            done = eroded(x)
        case "dilate":
            done = dilated(x)
        case "open":
            done = dilated(eroded(x))
        case "close":
            done = eroded(dilated(x))
        case "gradient":
            done = dilated(x) - eroded(x)
        case "bottom_hat":
            done = eroded(dilated(x)) - x
        case _:
            done = x - dilated(eroded(x))
    return (done.movedim(1, -1),)


def bayer(order: int) -> np.ndarray:
    """Bayer's matrix (https://en.wikipedia.org/wiki/Ordered_dithering), (order, order), from -0.5 to 0.5."""
    if order == 1:
        return np.zeros((1, 1), np.float32)
    half = bayer(order // 2)
    quarters = np.array([[-1.5, 0.5], [1.5, -0.5]], np.float32) / order**2
    return np.tile(half, (2, 2)) + np.kron(quarters, np.ones_like(half))


def _ordered(picture: Image.Image, order: int, colours: int) -> Image.Image:
    pixels = np.asarray(picture).astype(np.float32)
    height, width = pixels.shape[:2]
    step = bayer(order) * (2 * 256 / colours) + 0.5
    tiled = np.tile(step, (-(-height // order), -(-width // order)))[:height, :width, None]
    return Image.fromarray(np.clip(pixels + tiled, 0, 255).astype(np.uint8))


def _grey(channel: Tensor) -> Tensor:
    return channel.unsqueeze(-1).expand(*channel.shape, 3)
