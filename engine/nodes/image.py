"""Pictures: load, save, show, scale, invert. IMAGE is float32 (batch, height, width, channel) in 0..1."""

from __future__ import annotations

import hashlib
import secrets
from typing import Annotated, Any

import numpy as np
import torch

from engine.errors import GraphError
from engine.families.parts.resizing import CROPS, IMAGE_METHODS, resized
from engine.graph.limits import MAX_BATCH, MAX_SIDE
from engine.graph.metadata import Metadata, save_picture
from engine.graph.node import IMAGE, In, InputPictures, NodeContext, Out, OutputPictures, node, workspace_file
from engine.graph.parameters import parameters_of
from engine.graph.pictures import mark_as_draft, next_files, read_picture, to_picture
from engine.workspace import replacing


class NotFinite(GraphError):
    en = (
        "The {what} holds values that are no numbers (NaN or infinity), so nothing was saved. A half-precision VAE or "
        "model often does that: run it in float32, or check the model file and the LoRAs."
    )
    zh = (
        "{what}包含非数值（NaN 或无穷），因此没有保存。"
        "半精度的 VAE 或模型常会如此：请改用 float32，或检查模型文件和 LoRA。"
    )


def _content(ctx: NodeContext, image: str) -> str:
    return hashlib.sha256(workspace_file(ctx.workspace, image).read_bytes()).hexdigest()


@node(
    "LoadImage",
    title="Load Image",
    title_zh="加载图像",
    category="image",
    outputs=[Out("IMAGE"), Out("MASK")],
    fingerprint=_content,
)
def load_image(
    ctx: NodeContext, image: Annotated[str, In(InputPictures(), image_upload=True)]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The frames as a batch, and 1 where they are transparent; a 64 x 64 mask of zeros for a picture without alpha."""
    pixels, mask = read_picture(workspace_file(ctx.workspace, image))
    if mask is None:
        mask = np.zeros((len(pixels), 64, 64), np.float32)
    return torch.from_numpy(pixels), torch.from_numpy(mask)


@node(
    "LoadImageOutput",
    title="Load Image (from Outputs)",
    title_zh="加载图像（从输出）",
    category="image",
    outputs=[Out("IMAGE"), Out("MASK")],
    fingerprint=_content,
)
def load_image_output(
    ctx: NodeContext,
    image: Annotated[str, In(OutputPictures(), image_upload=True, extra={"image_folder": "output"})],
) -> tuple[torch.Tensor, torch.Tensor]:
    """As LoadImage, of what was made here."""
    return load_image(ctx, image)


def _content_of_channel(ctx: NodeContext, image: str, channel: str) -> str:
    return _content(ctx, image)


@node(
    "LoadImageMask",
    title="Load Image (as Mask)",
    title_zh="加载图像（作为遮罩）",
    category="mask",
    outputs=[Out("MASK")],
    fingerprint=_content_of_channel,
)
def load_image_mask(
    ctx: NodeContext,
    image: Annotated[str, In(InputPictures(), image_upload=True)],
    channel: Annotated[str, In(["alpha", "red", "green", "blue"])],
) -> tuple[torch.Tensor]:
    """One channel of the first frame as a mask; alpha is turned round, so that 1 is transparent."""
    pixels, mask = read_picture(workspace_file(ctx.workspace, image))
    if channel != "alpha":
        return (torch.from_numpy(pixels[:1, ..., ("red", "green", "blue").index(channel)].copy()),)
    return (torch.zeros(1, 64, 64) if mask is None else torch.from_numpy(mask[:1]),)


@node(
    "SaveImage",
    title="Save Image",
    title_zh="保存图像",
    category="image",
    description="Saves the pictures into the output folder, with the workflow that made them.",
    output_node=True,
    hidden=["PROMPT", "EXTRA_PNGINFO"],
)
def save_image(
    ctx: NodeContext,
    images: Annotated[torch.Tensor, In("IMAGE", tooltip="The images to save.")],
    filename_prefix: Annotated[
        str,
        In(
            "STRING",
            default="ComfyUI",
            tooltip="The start of the file names. May hold folders and %date:yyyy-MM-dd%, %width% and the like.",
        ),
    ],
) -> dict[str, Any]:
    return _save(ctx, images, "temp" if ctx.draft else "output", filename_prefix, compress_level=4)


@node(
    "PreviewImage",
    title="Preview Image",
    title_zh="预览图像",
    category="image",
    description="Shows the pictures without saving them.",
    output_node=True,
    hidden=["PROMPT", "EXTRA_PNGINFO"],
)
def preview_image(
    ctx: NodeContext, images: Annotated[torch.Tensor, In("IMAGE", tooltip="The images to preview.")]
) -> dict[str, Any]:
    return _save(ctx, images, "temp", f"ComfyUI_temp_{secrets.token_hex(4)}", compress_level=1)


@node(
    "ImageCompare",
    title="Compare Images",
    title_zh="对比图像",
    category="image",
    description="Shows two pictures over each other, with a line between them that follows the mouse.",
    output_node=True,
    hidden=["PROMPT", "EXTRA_PNGINFO"],
)
def image_compare(
    ctx: NodeContext,
    image_a: Annotated[torch.Tensor | None, In("IMAGE")] = None,
    image_b: Annotated[torch.Tensor | None, In("IMAGE")] = None,
    compare_view: Annotated[Any, In("IMAGECOMPARE", extra={"socketless": True})] = None,
) -> dict[str, Any]:
    """`compare_view` is where the editor draws them."""
    shown = {}
    for name, images in (("a_images", image_a), ("b_images", image_b)):
        if images is not None:
            shown[name] = _save(ctx, images, "temp", f"compare_{secrets.token_hex(4)}", 1)["ui"]["images"]
    return {"ui": shown}


def _save(ctx: NodeContext, images: torch.Tensor, kind: str, prefix: str, compress_level: int) -> dict[str, Any]:
    if not bool(torch.isfinite(images).all()):
        raise NotFinite(what="picture")
    _, height, width, _ = images.shape
    files = next_files(getattr(ctx.workspace, kind), prefix, width, height)
    metadata = metadata_for(ctx, width, height)
    saved = []
    for number, pixels in enumerate(images):
        ctx.interrupt_check()
        picture = to_picture(pixels.numpy())
        name = files.name(number, ".png")
        with replacing(files.folder / name) as file:
            save_picture(
                mark_as_draft(picture) if ctx.draft else picture, file, "PNG", metadata, compress_level=compress_level
            )
        saved.append({"filename": name, "subfolder": files.subfolder, "type": kind})
    return {"ui": {"images": saved}}


def metadata_for(ctx: NodeContext, width: int, height: int) -> Metadata:
    """What a picture of this node says about itself."""
    parameters = parameters_of(ctx.prompt, ctx.node_id, width, height)
    info = dict(ctx.extra_pnginfo)
    return Metadata(
        prompt=ctx.prompt,
        workflow=info.pop("workflow", None),
        parameters=parameters.text() if parameters else "",
        draft=ctx.draft,
        other=info,
    )


@node(
    "ImageScale",
    title="Upscale Image",
    title_zh="缩放图像",
    category="image/upscaling",
    outputs=[Out("IMAGE")],
)
def image_scale(
    ctx: NodeContext,
    image: IMAGE,
    upscale_method: Annotated[str, In(IMAGE_METHODS)],
    width: Annotated[int, In("INT", default=512, min=0, max=MAX_SIDE, step=1)],
    height: Annotated[int, In("INT", default=512, min=0, max=MAX_SIDE, step=1)],
    crop: Annotated[str, In(CROPS)],
) -> tuple[torch.Tensor]:
    """A side of 0 follows from the other."""
    if width == 0 and height == 0:
        return (image,)
    _, old_height, old_width, _ = image.shape
    width = width or max(1, round(old_width * height / old_height))
    height = height or max(1, round(old_height * width / old_width))
    return (_resized_image(image, width, height, upscale_method, crop),)


@node(
    "ImageScaleBy",
    title="Upscale Image By",
    title_zh="按比例缩放图像",
    category="image/upscaling",
    outputs=[Out("IMAGE")],
)
def image_scale_by(
    ctx: NodeContext,
    image: IMAGE,
    upscale_method: Annotated[str, In(IMAGE_METHODS)],
    scale_by: Annotated[float, In("FLOAT", default=1.0, min=0.01, max=8.0, step=0.01)],
) -> tuple[torch.Tensor]:
    _, height, width, _ = image.shape
    width, height = max(1, round(width * scale_by)), max(1, round(height * scale_by))
    return (_resized_image(image, width, height, upscale_method, "disabled"),)


@node("ImageInvert", title="Invert Image", title_zh="反转图像", category="image", outputs=[Out("IMAGE")])
def image_invert(ctx: NodeContext, image: IMAGE) -> tuple[torch.Tensor]:
    return (1.0 - image,)


@node("EmptyImage", title="EmptyImage", title_zh="空图像", category="image", outputs=[Out("IMAGE")])
def empty_image(
    ctx: NodeContext,
    width: Annotated[int, In("INT", default=512, min=1, max=MAX_SIDE, step=1)],
    height: Annotated[int, In("INT", default=512, min=1, max=MAX_SIDE, step=1)],
    batch_size: Annotated[int, In("INT", default=1, min=1, max=MAX_BATCH)],
    color: Annotated[int, In("INT", default=0, min=0, max=0xFFFFFF, step=1, extra={"display": "color"})],
) -> tuple[torch.Tensor]:
    rgb = torch.tensor([color >> 16 & 255, color >> 8 & 255, color & 255], dtype=torch.float32) / 255
    return (rgb.expand(batch_size, height, width, 3).clone(),)


def _resized_image(image: torch.Tensor, width: int, height: int, method: str, crop: str) -> torch.Tensor:
    return resized(image.movedim(-1, 1), width, height, method, crop).movedim(1, -1)
