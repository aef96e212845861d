"""MiniCPM-V 4.6 and 4.7: small chat models that cut a large picture into slices. transformers has classes for these
two; older ones need code of their own and run behind an endpoint (Ollama, llama.cpp, vLLM) only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from taggers.chat import ChatTool
from taggers.tool import CaptionerKind, setting

if TYPE_CHECKING:
    from engine.models.manager import ModelManager
    from taggers.chat_reader import ChatReader
    from taggers.folder import ModelFolder

TYPES = ("minicpmv4_6", "minicpmv4_7")


class MiniCpmTool(ChatTool):
    """What to ask a MiniCPM-V model."""

    kind: Literal["minicpm-v"] = "minicpm-v"  # pyright: ignore[reportIncompatibleVariableOverride]
    detail: Literal["16x", "4x"] = setting(
        "16x",
        "Detail",
        "细节",
        "How far what is seen is condensed: 4x keeps four times as much and takes longer.",
        "视觉信息的压缩程度：4x 保留四倍信息，但更慢。",
        True,
    )
    slices: int = setting(
        9,
        "Slices",
        "切片数",
        "Into how many parts a large picture is cut at most; 36 for fine text.",
        "大图最多切成几块；细小文字可用 36。",
        ge=1,
        le=64,
    )


def open_minicpm(manager: ModelManager, folder: ModelFolder, tool: MiniCpmTool) -> ChatReader:
    from taggers.chat_reader import ChatReader, Habits

    # the two must be told the same, or places in the text and what is seen do not match
    habits = Habits(
        processor={"downsample_mode": tool.detail, "max_slice_nums": tool.slices},
        generate={"downsample_mode": tool.detail},
    )
    return ChatReader(manager, folder, tool, habits)


def _recognise(config: Mapping[str, Any]) -> bool:
    return config.get("model_type") in TYPES


MINICPM = CaptionerKind(
    name="minicpm-v",
    title="MiniCPM-V 4.6 / 4.7",
    settings=MiniCpmTool,
    reader="taggers.minicpm:open_minicpm",
    recognise=_recognise,
    licence="Apache-2.0",
    sources=("openbmb/MiniCPM-V-4.6", "openbmb/MiniCPM-V-4.7-1B"),
    note="Older MiniCPM-V (2.6, 4.0, 4.5, o) run through an endpoint.",
    note_zh="更早的 MiniCPM-V（2.6、4.0、4.5、o）请通过接口使用。",
)
