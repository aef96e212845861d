"""Values as nodes, and what shows values: no model, no picture."""

from __future__ import annotations

import json
from typing import Annotated, Any

from engine.graph.node import IMAGE, In, NodeContext, Out, node

BIGGEST = 2**63 - 1


@node("PrimitiveInt", title="Int", title_zh="整数", category="utils/primitive", outputs=[Out("INT")])
def primitive_int(
    ctx: NodeContext, value: Annotated[int, In("INT", min=-BIGGEST, max=BIGGEST, control_after_generate=True)]
) -> tuple[int]:
    return (value,)


@node("PrimitiveFloat", title="Float", title_zh="浮点数", category="utils/primitive", outputs=[Out("FLOAT")])
def primitive_float(ctx: NodeContext, value: Annotated[float, In("FLOAT", min=-BIGGEST, max=BIGGEST)]) -> tuple[float]:
    return (value,)


@node("PrimitiveString", title="String", title_zh="文本", category="utils/primitive", outputs=[Out("STRING")])
def primitive_string(ctx: NodeContext, value: Annotated[str, In("STRING", multiline=False)]) -> tuple[str]:
    return (value,)


@node(
    "PrimitiveStringMultiline",
    title="String (Multiline)",
    title_zh="多行文本",
    category="utils/primitive",
    outputs=[Out("STRING")],
)
def primitive_string_multiline(ctx: NodeContext, value: Annotated[str, In("STRING", multiline=True)]) -> tuple[str]:
    return (value,)


@node("PrimitiveBoolean", title="Boolean", title_zh="布尔值", category="utils/primitive", outputs=[Out("BOOLEAN")])
def primitive_boolean(ctx: NodeContext, value: Annotated[bool, In("BOOLEAN")]) -> tuple[bool]:
    return (value,)


@node("StringConcatenate", title="Concatenate", title_zh="连接文本", category="utils/string", outputs=[Out("STRING")])
def string_concatenate(
    ctx: NodeContext,
    string_a: Annotated[str, In("STRING", multiline=True)],
    string_b: Annotated[str, In("STRING", multiline=True)],
    delimiter: Annotated[str, In("STRING", default="", multiline=False)],
) -> tuple[str]:
    return (delimiter.join((string_a, string_b)),)


def _chosen_side(switch: bool, on_true: Any, on_false: Any) -> list[str]:
    name, value = ("on_true", on_true) if switch else ("on_false", on_false)
    return [name] if value is None else []


@node(
    "ComfySwitchNode",
    title="If/Else Switch",
    title_zh="条件切换",
    category="logic",
    outputs=[Out("*", "output")],
    check_lazy=_chosen_side,
    description="Only the chosen side is computed.",
)
def switch(
    ctx: NodeContext,
    switch: Annotated[bool, In("BOOLEAN")],
    on_false: Annotated[Any, In("*", lazy=True)],
    on_true: Annotated[Any, In("*", lazy=True)],
) -> tuple[Any]:
    return (on_true if switch else on_false,)


@node("PreviewAny", title="Preview as Text", title_zh="预览为文本", category="utils", output_node=True)
def preview_any(ctx: NodeContext, source: Annotated[Any, In("*")]) -> dict[str, Any]:
    """Shows any value as text."""
    if isinstance(source, str):
        text = source
    elif isinstance(source, int | float | bool) or source is None:
        text = str(source)
    else:
        try:
            text = json.dumps(source)
        except (TypeError, ValueError):
            text = str(source)
    return {"ui": {"text": [text]}}


@node(
    "GetImageSize",
    title="Get Image Size",
    title_zh="获取图像尺寸",
    category="image",
    outputs=[Out("INT", "width"), Out("INT", "height"), Out("INT", "batch_size")],
    hidden=["UNIQUE_ID"],
)
def get_image_size(ctx: NodeContext, image: IMAGE) -> tuple[int, int, int]:
    batch, height, width, _ = image.shape
    return width, height, batch
