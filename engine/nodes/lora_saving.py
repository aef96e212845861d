"""What tells two models apart, as a LoRA: of a difference of weights the part of lowest rank that is nearest to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from engine.errors import GraphError
from engine.families.base import Clip, FamilySpec, Model
from engine.families.parts import saving
from engine.graph.node import In, NodeContext, node
from engine.graph.pictures import next_files
from engine.nodes.model_saving import HIDDEN, NotFiniteWeights, workflow_of
from engine.weights.writing import write_tensors
from engine.workspace import replacing

Kind = Literal["standard", "full_diff"]


class NoDifference(GraphError):
    en = (
        "There is nothing to make a LoRA of: {reason}. Connect what ModelMergeSubtract or CLIPMergeSubtract makes of "
        "two different models."
    )
    zh = "没有可提取为 LoRA 的内容：{reason_zh}。请连接 ModelMergeSubtract 或 CLIPMergeSubtract 对两个不同模型的输出。"


@node(
    "LoraSave",
    title="Extract and Save Lora",
    title_zh="提取并保存 LoRA",
    category="_for_testing",
    output_node=True,
    hidden=HIDDEN,
)
def lora_save(
    ctx: NodeContext,
    filename_prefix: Annotated[str, In("STRING", default="loras/ComfyUI_extracted_lora", multiline=False)],
    rank: Annotated[int, In("INT", default=8, min=1, max=4096, step=1)],
    lora_type: Annotated[Kind, In(["standard", "full_diff"])],
    bias_diff: Annotated[bool, In("BOOLEAN", default=True)],
    model_diff: Annotated[
        Model | None, In("MODEL", tooltip="The ModelSubtract output to be converted to a lora.")
    ] = None,
    text_encoder_diff: Annotated[
        Clip | None, In("CLIP", tooltip="The CLIPSubtract output to be converted to a lora.")
    ] = None,
) -> dict[str, Any]:
    """standard: low-rank pairs of that rank, and plain differences of what has no two sides (norms; biases with
    `bias_diff`). full_diff: the differences themselves. Layers that do not differ are left out."""
    parts = []
    if model_diff is not None:
        parts.append(saving.denoiser_part(model_diff, "diffusion_model."))
    if text_encoder_diff is not None:
        place = "text_encoders.{}.transformer."
        parts += saving.text_parts_alone(text_encoder_diff, place.format).values()
    given = model_diff if model_diff is not None else text_encoder_diff
    if given is None:
        raise NoDifference(reason="nothing is connected", reason_zh="没有连接任何输入")
    if ctx.draft:
        return {}
    tensors = dict(_extracted(ctx, parts, rank, lora_type, bias_diff))
    if not tensors:
        raise NoDifference(reason="all weights are zero", reason_zh="所有权重均为零")
    files = next_files(ctx.workspace.output, filename_prefix)
    name = files.name(0, ".safetensors")
    metadata = {**_about(given.family.spec, rank, lora_type), **workflow_of(ctx)}
    metadata["modelspec.title"] = f"{files.stem} {files.first}"
    with replacing(files.folder / name) as file:
        write_tensors(file, tensors, tensors.items(), metadata)
    return {"ui": {"models": [{"filename": name, "subfolder": files.subfolder, "type": "output"}]}}


def low_rank(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(up, down) whose product is the nearest of that rank (Eckart and Young 1936): (out, rank[, 1, 1]) and
    (rank, in[, height, width]), in half precision on the host."""
    flat = weight.float().flatten(1)
    rank = min(rank, *flat.shape)
    left, sizes, right = torch.linalg.svd(flat, full_matrices=False)
    up, down = left[:, :rank] * sizes[:rank], right[:rank]
    if weight.ndim > 2:
        up = up.reshape(len(up), rank, *(1 for _ in weight.shape[2:]))
        down = down.reshape(rank, *weight.shape[1:])
    return _kept(up), _kept(down)


def _extracted(
    ctx: NodeContext, parts: list[saving.Part], rank: int, kind: Kind, with_biases: bool
) -> Iterator[tuple[str, Tensor]]:
    count = len(saving.names_of(ctx.models, parts))
    for done, (name, tensor, _) in enumerate(saving.made(ctx.models, parts)):
        ctx.progress(min(done, count), count)
        layer, _, leaf = name.rpartition(".")
        if leaf not in ("weight", "bias") or not bool(tensor.any()):
            continue
        if not bool(torch.isfinite(tensor).all()):
            raise NotFiniteWeights(name=name, title="the difference")
        if leaf == "bias":
            if with_biases:
                yield f"{layer}.diff_b", _kept(tensor)
        elif kind == "full_diff":
            yield f"{layer}.diff", _kept(tensor)
        elif tensor.ndim >= 2:
            up, down = low_rank(tensor, rank)
            yield f"{layer}.lora_up.weight", up
            yield f"{layer}.lora_down.weight", down
        elif with_biases:
            yield f"{layer}.diff", _kept(tensor)


def _kept(tensor: Tensor) -> Tensor:
    return tensor.to("cpu", torch.float16).contiguous()


def _about(spec: FamilySpec, rank: int, kind: Kind) -> dict[str, str]:
    words = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{spec.architecture}/lora",
        "modelspec.implementation": spec.implementation,
        "ss_base_model_version": spec.base_model_version,
    }
    return words | ({"ss_network_dim": str(rank)} if kind == "standard" else {})
