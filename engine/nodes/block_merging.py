"""Two models merged with a ratio for each block, named as in the files of the model's maker.

A layer goes by the longest of the names that its own begins with; what none fits goes by the first ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from engine.families.base import Model
from engine.graph.node import MODEL, In, NodeContext, node
from engine.nodes.merging import MODEL_OUT, by_prefix, merged_models

CATEGORY = "advanced/model_merging/model_specific"
Ratios = Mapping[str, float]


def _ratios(*names: str) -> dict[str, In]:
    return {name: In("FLOAT", default=1.0, min=0.0, max=1.0, step=0.01) for name in names}


def _numbered(pattern: str, count: int) -> list[str]:
    return [pattern.format(i) for i in range(count)]


def _unet(levels: int, end: str) -> dict[str, In]:
    blocks = [f"{side}_blocks.{{}}{end}" for side in ("input", "output")]
    middle = _numbered(f"middle_block.{{}}{end}", 3)
    return _ratios(
        "time_embed.", "label_emb.", *_numbered(blocks[0], levels), *middle, *_numbered(blocks[1], levels), "out."
    )


def _sd3(blocks: int) -> dict[str, In]:
    first = ("pos_embed.", "x_embedder.", "context_embedder.", "y_embedder.", "t_embedder.")
    return _ratios(*first, *_numbered("joint_blocks.{}.", blocks), "final_layer.")


FLUX = _ratios(
    *("img_in.", "time_in.", "guidance_in", "vector_in.", "txt_in."),
    *_numbered("double_blocks.{}.", 19),
    *_numbered("single_blocks.{}.", 38),
    "final_layer.",
)


def _merging(name: str, models: str, inputs: Mapping[str, In]) -> Callable[..., tuple[Model]]:
    @node(name, title_zh=f"模型合并（{models} 分块）", category=CATEGORY, outputs=MODEL_OUT, inputs=inputs)
    def merge(ctx: NodeContext, model1: MODEL, model2: MODEL, ratios: Ratios) -> tuple[Model]:
        return (merged_models(ctx, model1, model2, by_prefix(model1, ratios)),)

    return merge


model_merge_sd1 = _merging("ModelMergeSD1", "SD1", _unet(12, "."))
model_merge_sd2 = _merging("ModelMergeSD2", "SD2", _unet(12, "."))
model_merge_sdxl = _merging("ModelMergeSDXL", "SDXL", _unet(9, ""))
model_merge_sd3_2b = _merging("ModelMergeSD3_2B", "SD3 2B", _sd3(24))
model_merge_sd35_large = _merging("ModelMergeSD35_Large", "SD3.5 Large", _sd3(38))
model_merge_flux1 = _merging("ModelMergeFlux1", "Flux.1", FLUX)
