"""Sizes of pictures by proportion and count of pixels."""

from __future__ import annotations

from math import sqrt
from typing import Annotated

from engine.graph.node import In, NodeContext, Out, node

MEGAPIXEL = 1024 * 1024
ASPECT_RATIOS = {
    "1:1 (Square)": (1, 1),
    "2:3 (Portrait Photo)": (2, 3),
    "3:2 (Photo)": (3, 2),
    "3:4 (Portrait Standard)": (3, 4),
    "4:3 (Standard)": (4, 3),
    "9:16 (Portrait Widescreen)": (9, 16),
    "16:9 (Widescreen)": (16, 9),
    "21:9 (Ultrawide)": (21, 9),
}


@node(
    "ResolutionSelector",
    title="Resolution Selector",
    title_zh="分辨率选择",
    category="utils",
    outputs=[Out("INT", "width"), Out("INT", "height")],
)
def resolution_selector(
    ctx: NodeContext,
    aspect_ratio: Annotated[str, In(list(ASPECT_RATIOS), default="1:1 (Square)")],
    megapixels: Annotated[
        float,
        In("FLOAT", default=1.0, min=0.1, max=16.0, step=0.1, tooltip="In millions of pixels: 1 is 1024 x 1024."),
    ],
    multiple: Annotated[int, In("INT", default=8, min=1, max=256, tooltip="Both sides are multiples of this.")],
) -> tuple[int, int]:
    """The sides nearest to that proportion and count."""
    across, down = ASPECT_RATIOS[aspect_ratio]
    unit = sqrt(megapixels * MEGAPIXEL / (across * down))
    width, height = (max(1, round(side * unit / multiple)) * multiple for side in (across, down))
    return width, height
