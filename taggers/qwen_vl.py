"""Qwen2.5-VL, Qwen3-VL and what has their classes: chat models that see a picture at its own shape, up to a budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from taggers.chat import ChatTool
from taggers.reader import UnfitPicture
from taggers.tool import CaptionerKind, setting

if TYPE_CHECKING:
    from PIL import Image

    from engine.models.manager import ModelManager
    from taggers.chat_reader import ChatReader
    from taggers.folder import ModelFolder

TYPES = ("qwen2_5_vl", "qwen3_vl", "qwen2_vl", "qwen3_vl_moe", "qwen3_5")


NARROWEST = 200  # the model's own processor refuses sides of more than this ratio


class TooNarrow(UnfitPicture):
    en = (
        "A picture of {width} x {height} is too narrow for {kind}: its long side may be {ratio} times its short one. "
        "Crop it, or let another model describe it."
    )
    zh = "{width} x {height} 的图片对 {kind} 来说过于狭长：长边最多为短边的 {ratio} 倍。请裁剪，或改用其他模型。"


class QwenTool(ChatTool):
    """What to ask a Qwen-VL model."""

    kind: Literal["qwen-vl"] = "qwen-vl"  # pyright: ignore[reportIncompatibleVariableOverride]
    side: int = setting(
        768,
        "Picture budget",
        "图片尺寸预算",
        "A picture is scaled to about this many pixels a side, squared; more sees more and takes longer.",
        "图片缩放到约该边长平方的像素数；越大看得越细，也越慢。",
        True,
        ge=56,
        le=4096,
    )


def open_qwen(manager: ModelManager, folder: ModelFolder, tool: QwenTool) -> ChatReader:
    from taggers.chat_reader import ChatReader, Habits

    pixels = {"shortest_edge": 4 * 28 * 28, "longest_edge": tool.side * tool.side}
    habits = Habits(
        processor={"size": pixels},
        at_least=tool.side,
        shrink=lambda processor, image: shrunk(processor.image_processor, image, tool.side * tool.side),
    )
    return ChatReader(manager, folder, tool, habits)


def shrunk(processor: Any, image: Image.Image, most: int) -> Image.Image:
    """A picture at the size that the model's own processor would give it, so that this is done beside the model.

    Raises TooNarrow."""
    from PIL import Image as Pillow
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    if max(image.size) > NARROWEST * min(image.size):
        raise TooNarrow(width=image.width, height=image.height, kind="Qwen-VL", ratio=NARROWEST)
    factor = processor.patch_size * processor.merge_size
    height, width = smart_resize(image.height, image.width, factor=factor, min_pixels=4 * 28 * 28, max_pixels=most)
    return image if image.size == (width, height) else image.resize((width, height), Pillow.Resampling.BICUBIC)


def _recognise(config: Mapping[str, Any]) -> bool:
    return config.get("model_type") in TYPES


QWEN_VL = CaptionerKind(
    name="qwen-vl",
    title="Qwen-VL",
    settings=QwenTool,
    reader="taggers.qwen_vl:open_qwen",
    recognise=_recognise,
    licence="Apache-2.0 (Qwen2.5-VL-3B: research only)",
    sources=("Qwen/Qwen3-VL-8B-Instruct", "Qwen/Qwen3-VL-4B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct"),
)
