"""Latents: make, scale, batch, save, load. LATENT is {"samples": (batch, c, height / factor, width / factor), ...}."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from engine.errors import FileError, GraphError
from engine.families.parts.resizing import CROPS, LATENT_METHODS, repeated_to, resized
from engine.graph.limits import MAX_BATCH, MAX_SIDE
from engine.graph.node import LATENT, In, InputFiles, NodeContext, Out, node, workspace_file
from engine.graph.pictures import next_files
from engine.nodes.image import NotFinite
from engine.workspace import replacing

PIXELS_PER_CELL = 8  # what the sizes of these nodes are in, whatever the VAE's own factor is; as in ComfyUI
OLD_SCALE = 0.18215  # latents saved before the format had a version are in the denoiser's scale


class NotALatent(FileError):
    en = "'{name}' is not a saved latent: {reason}."
    zh = "“{name}”不是已保存的潜变量文件：{reason}。"


class LatentsDiffer(GraphError):
    en = (
        "One latent has {first} channels and the other {second}, or they differ in their axes ({shapes}): they are of "
        "different models. Encode both with the VAE of one model."
    )
    zh = (
        "两个潜变量的通道数为 {first} 和 {second}，或维度不同（{shapes}）：它们属于不同的模型。"
        "请用同一模型的 VAE 编码两者。"
    )


def of_one_model(first: Tensor, second: Tensor) -> None:
    """Raises LatentsDiffer where they can't be of one model."""
    if first.ndim != second.ndim or first.shape[1] != second.shape[1]:
        shapes = f"{tuple(first.shape)}, {tuple(second.shape)}"
        raise LatentsDiffer(first=first.shape[1], second=second.shape[1], shapes=shapes)


@node(
    "EmptyLatentImage", title="Empty Latent Image", title_zh="空潜变量图像", category="latent", outputs=[Out("LATENT")]
)
def empty_latent_image(
    ctx: NodeContext,
    width: Annotated[
        int, In("INT", default=512, min=16, max=MAX_SIDE, step=8, tooltip="The width of the latent images in pixels.")
    ],
    height: Annotated[
        int, In("INT", default=512, min=16, max=MAX_SIDE, step=8, tooltip="The height of the latent images in pixels.")
    ],
    batch_size: Annotated[
        int, In("INT", default=1, min=1, max=MAX_BATCH, tooltip="The number of latent images in the batch.")
    ],
) -> tuple[dict[str, Any]]:
    """Zeros, to be noised at full denoise."""
    return ({"samples": torch.zeros(batch_size, 4, height // PIXELS_PER_CELL, width // PIXELS_PER_CELL)},)


@node(
    "LatentUpscale",
    title="Upscale Latent",
    title_zh="缩放潜变量",
    category="latent",
    outputs=[Out("LATENT")],
)
def latent_upscale(
    ctx: NodeContext,
    samples: LATENT,
    upscale_method: Annotated[str, In(LATENT_METHODS)],
    width: Annotated[int, In("INT", default=512, min=0, max=MAX_SIDE, step=8)],
    height: Annotated[int, In("INT", default=512, min=0, max=MAX_SIDE, step=8)],
    crop: Annotated[str, In(CROPS)],
) -> tuple[dict[str, Any]]:
    """A side of 0 follows from the other; neither gets below 64 pixels."""
    if width == 0 and height == 0:
        return (samples,)
    old_height, old_width = samples["samples"].shape[-2:]
    if width == 0:
        height = max(64, height)
        width = max(64, round(old_width * height / old_height))
    elif height == 0:
        width = max(64, width)
        height = max(64, round(old_height * width / old_width))
    width, height = max(64, width) // PIXELS_PER_CELL, max(64, height) // PIXELS_PER_CELL
    return ({**samples, "samples": resized(samples["samples"], width, height, upscale_method, crop)},)


@node(
    "LatentUpscaleBy",
    title="Upscale Latent By",
    title_zh="按比例缩放潜变量",
    category="latent",
    outputs=[Out("LATENT")],
)
def latent_upscale_by(
    ctx: NodeContext,
    samples: LATENT,
    upscale_method: Annotated[str, In(LATENT_METHODS)],
    scale_by: Annotated[float, In("FLOAT", default=1.5, min=0.01, max=8.0, step=0.01)],
) -> tuple[dict[str, Any]]:
    height, width = samples["samples"].shape[-2:]
    width, height = max(1, round(width * scale_by)), max(1, round(height * scale_by))
    return ({**samples, "samples": resized(samples["samples"], width, height, upscale_method, "disabled")},)


@node(
    "LatentFromBatch",
    title="Latent From Batch",
    title_zh="从批次取潜变量",
    category="latent/batch",
    outputs=[Out("LATENT")],
)
def latent_from_batch(
    ctx: NodeContext,
    samples: LATENT,
    batch_index: Annotated[int, In("INT", default=0, min=0, max=63)],
    length: Annotated[int, In("INT", default=1, min=1, max=64)],
) -> tuple[dict[str, Any]]:
    """A part of a batch. It keeps its places in `batch_index`, so that it gets the noise it had in the whole batch."""
    whole = samples["samples"]
    first = min(len(whole) - 1, batch_index)
    length = min(len(whole) - first, length)
    part = {**samples, "samples": whole[first : first + length].clone()}
    if "noise_mask" in samples:
        mask = samples["noise_mask"]
        part["noise_mask"] = mask.clone() if len(mask) == 1 else repeated_to(mask, len(whole))[first : first + length]
    places = samples.get("batch_index") or list(range(len(whole)))
    part["batch_index"] = places[first : first + length]
    return (part,)


@node(
    "RepeatLatentBatch",
    title="Repeat Latent Batch",
    title_zh="重复潜变量批次",
    category="latent/batch",
    outputs=[Out("LATENT")],
)
def repeat_latent_batch(
    ctx: NodeContext, samples: LATENT, amount: Annotated[int, In("INT", default=1, min=1, max=64)]
) -> tuple[dict[str, Any]]:
    whole = samples["samples"]
    repeated = {**samples, "samples": whole.repeat(amount, *[1] * (whole.ndim - 1))}
    if "noise_mask" in samples and len(samples["noise_mask"]) > 1:
        mask = repeated_to(samples["noise_mask"], len(whole))
        repeated["noise_mask"] = mask.repeat(amount, *[1] * (mask.ndim - 1))
    if "batch_index" in samples:
        places = samples["batch_index"]
        step = max(places) - min(places) + 1
        repeated["batch_index"] = [place + step * turn for turn in range(amount) for place in places]
    return (repeated,)


@node(
    "SetLatentNoiseMask",
    title="Set Latent Noise Mask",
    title_zh="设置潜变量噪声遮罩",
    category="latent/inpaint",
    outputs=[Out("LATENT")],
)
def set_latent_noise_mask(
    ctx: NodeContext, samples: LATENT, mask: Annotated[torch.Tensor, In("MASK")]
) -> tuple[dict[str, Any]]:
    """Only where the mask is 1 is anything changed by sampling."""
    return ({**samples, "noise_mask": mask.reshape(-1, 1, *mask.shape[-2:])},)


@node(
    "SaveLatent",
    title="SaveLatent",
    title_zh="保存潜变量",
    category="_for_testing",
    output_node=True,
    hidden=["PROMPT", "EXTRA_PNGINFO"],
)
def save_latent(
    ctx: NodeContext, samples: LATENT, filename_prefix: Annotated[str, In("STRING", default="latents/ComfyUI")]
) -> dict[str, Any]:
    if not bool(torch.isfinite(samples["samples"]).all()):
        raise NotFinite(what="latent")
    kind = "temp" if ctx.draft else "output"
    files = next_files(getattr(ctx.workspace, kind), filename_prefix)
    name = files.name(0, ".latent")
    metadata = {"prompt": json.dumps(ctx.prompt), **{k: json.dumps(v) for k, v in ctx.extra_pnginfo.items()}}
    if ctx.draft:
        metadata["easel_draft"] = "true"
    tensors = {"latent_tensor": samples["samples"].contiguous(), "latent_format_version_0": torch.tensor([])}
    with replacing(files.folder / name) as file:
        file.write(save(tensors, metadata))
    return {"ui": {"latents": [{"filename": name, "subfolder": files.subfolder, "type": kind}]}}


def _content(ctx: NodeContext, latent: str) -> str:
    return hashlib.sha256(workspace_file(ctx.workspace, latent).read_bytes()).hexdigest()


@node(
    "LoadLatent",
    title="LoadLatent",
    title_zh="加载潜变量",
    category="_for_testing",
    outputs=[Out("LATENT")],
    fingerprint=_content,
)
def load_latent(
    ctx: NodeContext, latent: Annotated[str, In(InputFiles((".latent",), "latent"))]
) -> tuple[dict[str, Any]]:
    path = workspace_file(ctx.workspace, latent)
    try:
        tensors = load(path.read_bytes())
    except (SafetensorError, ValueError) as error:
        raise NotALatent(name=path.name, reason=str(error)[:200]) from error
    if "latent_tensor" not in tensors:
        raise NotALatent(name=path.name, reason="it holds no latent_tensor")
    scale = 1.0 if "latent_format_version_0" in tensors else 1.0 / OLD_SCALE
    return ({"samples": tensors["latent_tensor"].float() * scale},)
