"""Pictures saved in other depths than 8 bits: PNG of 16 bits, OpenEXR."""

from __future__ import annotations

from typing import Annotated, Any

import torch

from engine.graph.deep_pictures import write_exr, write_png16
from engine.graph.metadata import save_picture
from engine.graph.node import In, NodeContext, Out, node
from engine.graph.pictures import mark_as_draft, next_files, to_picture
from engine.nodes.image import NotFinite, metadata_for
from engine.workspace import replacing

COMPRESS_LEVEL = 4


def _choice(*options: str, tooltip: str = "") -> list[Any]:
    return ["COMBO", {"options": list(options), "default": options[0], **({"tooltip": tooltip} if tooltip else {})}]


FORMATS = {
    "options": [
        {
            "key": "png",
            "inputs": {
                "required": {"bit_depth": _choice("8-bit", "16-bit"), "input_color_space": _choice("sRGB")},
            },
        },
        {
            "key": "exr",
            "inputs": {
                "required": {
                    "bit_depth": _choice("32-bit float"),
                    "input_color_space": _choice(
                        "sRGB",
                        "HDR",
                        "linear",
                        tooltip="How the pictures are encoded: sRGB, HLG of Rec. 2020 (HDR), or not at all. The file "
                        "holds linear light.",
                    ),
                },
            },
        },
    ]
}


@node(
    "SaveImageAdvanced",
    title="Save Image (Advanced)",
    title_zh="保存图像（高级）",
    category="image",
    description="Saves the pictures into the output folder, with the workflow that made them.",
    outputs=[Out("IMAGE", "images")],
    output_node=True,
    hidden=["PROMPT", "EXTRA_PNGINFO"],
)
def save_image_advanced(
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
    format: Annotated[dict[str, str], In("COMFY_DYNAMICCOMBO_V3", extra=FORMATS)],
) -> dict[str, Any]:
    """A draft is always saved as an ordinary PNG, which says that it is one."""
    if not bool(torch.isfinite(images).all()):
        raise NotFinite(what="picture")
    place = "temp" if ctx.draft else "output"
    _, height, width, _ = images.shape
    files = next_files(getattr(ctx.workspace, place), filename_prefix, width, height)
    metadata = metadata_for(ctx, width, height)
    kind = "png" if ctx.draft else format["format"]
    saved = []
    for number, one in enumerate(images):
        ctx.interrupt_check()
        pixels = one.numpy()
        name = files.name(number, f".{kind}")
        with replacing(files.folder / name) as file:
            if kind == "exr":
                write_exr(pixels, file, metadata, format["input_color_space"])  # type: ignore[arg-type]
            elif format["bit_depth"] == "16-bit" and not ctx.draft:
                write_png16(pixels, file, metadata, COMPRESS_LEVEL)
            else:
                picture = to_picture(pixels)
                picture = mark_as_draft(picture) if ctx.draft else picture
                save_picture(picture, file, "PNG", metadata, compress_level=COMPRESS_LEVEL)
        saved.append({"filename": name, "subfolder": files.subfolder, "type": place})
    return {"ui": {"images": saved}, "result": (images,)}
