"""STYLE_MODEL links: Flux.1 Redux, which turns what a vision encoder saw into tokens of text. Torch-free up to where
one is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import FileError, GraphError
from engine.families.parts.stored import StoredPart
from engine.weights.lora import title_of

if TYPE_CHECKING:
    from torch import nn

    from engine.models.manager import ModelManager, ModelRef

WEIGHTS = ("redux_up.weight", "redux_up.bias", "redux_down.weight", "redux_down.bias")


class NoStyleModel(FileError):
    en = "{path} is not a style model that is known here (Flux.1 Redux): {name} is missing."
    zh = "{path} 不是此处已知的风格模型（Flux.1 Redux）：缺少 {name}。"


class WrongVision(GraphError):
    en = (
        "{title} takes what an encoder of width {wanted} saw, not {given}. Load the vision encoder that belongs to it "
        "(for Flux.1 Redux: sigclip_vision_patch14_384)."
    )
    zh = (
        "{title} 需要宽度为 {wanted} 的编码器输出，而不是 {given}。"
        "请加载与其对应的视觉编码器（Flux.1 Redux：sigclip_vision_patch14_384）。"
    )


@dataclass(frozen=True)
class StyleModel:
    """A STYLE_MODEL link. It takes states of width `seen` and gives tokens of width `told`."""

    ref: ModelRef
    seen: int
    told: int


def load_style(manager: ModelManager, path: Path, *, allow_pickle: bool = False) -> StyleModel:
    """Registers it with the manager; only its header is read. Raises NoStyleModel."""
    from engine.weights.load import open_header

    header = open_header(path, allow_pickle=allow_pickle)
    missing = next((name for name in WEIGHTS if name not in header), None)
    if missing is not None:
        raise NoStyleModel(path=path, name=missing)
    inner, seen = header.shape("redux_up.weight")
    config = {"seen": seen, "inner": inner, "told": header.shape("redux_down.weight")[0]}
    part = StoredPart(header, "other", "", config, lambda name: name if name in WEIGHTS else None, build=_build)
    return StyleModel(part.register(manager, title_of(path, header.metadata)), seen, config["told"])


def _build(config: Mapping[str, Any]) -> nn.Module:
    from engine.families.parts import style

    return style.build(config)
