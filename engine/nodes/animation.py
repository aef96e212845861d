"""A batch of pictures saved as one moving picture, with the workflow that made it."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from PIL import Image

from engine.graph.metadata import save_picture
from engine.graph.node import IMAGE, In, NodeContext, node
from engine.graph.pictures import mark_as_draft, next_files, to_picture
from engine.nodes.image import NotFinite, metadata_for
from engine.workspace import replacing

Prefix = Annotated[str, In("STRING", default="ComfyUI")]
Fps = Annotated[float, In("FLOAT", default=6.0, min=0.01, max=1000.0, step=0.01)]
METHODS = {"default": 4, "fastest": 0, "slowest": 6}  # how hard WebP tries


@node(
    "SaveAnimatedWEBP",
    title="SaveAnimatedWEBP",
    title_zh="保存动态 WEBP",
    category="image/animation",
    output_node=True,
    hidden=["PROMPT", "EXTRA_PNGINFO"],
)
def save_animated_webp(
    ctx: NodeContext,
    images: IMAGE,
    filename_prefix: Prefix,
    fps: Fps,
    lossless: Annotated[bool, In("BOOLEAN", default=True)],
    quality: Annotated[int, In("INT", default=80, min=0, max=100)],
    method: Annotated[str, In(list(METHODS))],
) -> dict[str, Any]:
    options = {"lossless": lossless, "quality": quality, "method": METHODS[method]}
    return _save(ctx, images, filename_prefix, fps, "WEBP", ".webp", options)


@node(
    "SaveAnimatedPNG",
    title="SaveAnimatedPNG",
    title_zh="保存动态 PNG",
    category="image/animation",
    output_node=True,
    hidden=["PROMPT", "EXTRA_PNGINFO"],
)
def save_animated_png(
    ctx: NodeContext,
    images: IMAGE,
    filename_prefix: Prefix,
    fps: Fps,
    compress_level: Annotated[int, In("INT", default=4, min=0, max=9)],
) -> dict[str, Any]:
    return _save(ctx, images, filename_prefix, fps, "PNG", ".png", {"compress_level": compress_level})


def _save(
    ctx: NodeContext, images: torch.Tensor, prefix: str, fps: float, kind: str, suffix: str, options: dict[str, Any]
) -> dict[str, Any]:
    if not bool(torch.isfinite(images).all()):
        raise NotFinite(what="picture")
    place = "temp" if ctx.draft else "output"
    _, height, width, _ = images.shape
    files = next_files(getattr(ctx.workspace, place), prefix, width, height)
    first, *others = (_frame(ctx, one) for one in images)
    name = files.name(0, suffix)
    moving = {"save_all": True, "duration": int(1000.0 / fps), "append_images": others}
    with replacing(files.folder / name) as file:
        save_picture(first, file, kind, metadata_for(ctx, width, height), **moving, **options)
    return {
        "ui": {
            "images": [{"filename": name, "subfolder": files.subfolder, "type": place}],
            "animated": (len(images) != 1,),
        }
    }


def _frame(ctx: NodeContext, pixels: torch.Tensor) -> Image.Image:
    ctx.interrupt_check()
    picture = to_picture(pixels.numpy())
    return mark_as_draft(picture) if ctx.draft else picture
