"""How texts are filled up before an encoder reads them."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from engine.families.base import Clip, Padding
from engine.graph.node import CLIP, In, NodeContext, Out, node

Count = Annotated[int, In("INT", default=0, min=0, max=10000, step=1)]


@node(
    "T5TokenizerOptions",
    title_zh="T5 分词器选项",
    category="_for_testing/conditioning",
    outputs=[Out("CLIP")],
)
def t5_tokenizer_options(ctx: NodeContext, clip: CLIP, min_padding: Count, min_length: Count) -> tuple[Clip]:
    """Padding behind a text of T5, and how many tokens there are at least, in place of what the family has. Encoders of
    other kinds read as before."""
    return (replace(clip, padding=Padding(min_padding, min_length)),)
