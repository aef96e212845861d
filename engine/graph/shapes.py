"""Whether what flows into a node as a picture, a mask or a latent can be one. Nodes of packs may give out anything; our
own would fail on it in the words of torch. Torch-free: it looks at shapes alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.errors import GraphError

# How many axes of the socket's values there may be, the last ones of which are its sides.
AXES = {"IMAGE": (4, 4), "MASK": (2, 4), "LATENT": (3, 5)}
IS_A = {
    "IMAGE": ("a picture, (batch, height, width, channels)", "图像（批次, 高, 宽, 通道）"),
    "MASK": ("a mask, (batch, height, width)", "遮罩（批次, 高, 宽）"),
    "LATENT": ("a latent, (batch, channels, height, width)", "潜变量（批次, 通道, 高, 宽）"),
}


class WrongShape(GraphError):
    en = "'{name}' must be {what}, no side of it 0. The node before gave one of the shape {shape}."
    zh = "“{name}”必须是{what_zh}，且任何一边都不能为 0。前一个节点给出的形状为 {shape}。"


def check_shapes(sockets: Mapping[str, str], arguments: Mapping[str, Any]) -> None:
    """sockets: {input: IMAGE, MASK or LATENT}. A batch may be empty. Raises WrongShape."""
    for name, socket in sockets.items():
        given = arguments.get(name)
        for value in given if isinstance(given, list) else (given,):
            tensor = value.get("samples") if socket == "LATENT" and isinstance(value, Mapping) else value
            shape = getattr(tensor, "shape", None)
            if shape is None:
                continue
            least, most = AXES[socket]
            if not least <= len(shape) <= most or 0 in shape[1 if len(shape) > 2 else 0 :]:
                what, what_zh = IS_A[socket]
                raise WrongShape(name=name, what=what, what_zh=what_zh, shape=tuple(shape))
