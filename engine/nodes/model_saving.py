"""Models saved as files that every program of the field loads, with the LoRAs and merges in force in their weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import torch
from torch import Tensor

from engine.errors import GraphError
from engine.families.base import Model
from engine.families.parts import edm, saving
from engine.families.parts.schedule import DiscreteSchedule
from engine.graph.node import CLIP, MODEL, VAE, In, NodeContext, node
from engine.graph.pictures import next_files
from engine.weights.writing import write_tensors
from engine.workspace import replacing

CATEGORY = "advanced/model_merging"
HIDDEN = ("PROMPT", "EXTRA_PNGINFO")
PREDICTED = {"eps": "epsilon", "v": "v"}  # modelspec's words
PURE_NOISE = 1000.0  # a sigma that no schedule reaches but one that ends in noise alone


class NotFiniteWeights(GraphError):
    en = "'{name}' of {title} holds values that are no numbers (NaN or infinity), so nothing was saved."
    zh = "{title} 的“{name}”包含非数值（NaN 或无穷），因此没有保存。"


def _prefix(default: str) -> In:
    return In("STRING", default=default)


@node(
    "CheckpointSave",
    title="Save Checkpoint",
    title_zh="保存检查点",
    category=CATEGORY,
    output_node=True,
    hidden=HIDDEN,
)
def checkpoint_save(
    ctx: NodeContext,
    model: MODEL,
    clip: CLIP,
    vae: VAE,
    filename_prefix: Annotated[str, _prefix("checkpoints/ComfyUI")],
) -> dict[str, Any]:
    """Denoiser, text encoders and VAE in one file."""
    parts = saving.checkpoint_parts(model, clip, vae)
    about = {**saving.about_parts(model, clip, vae), **_modelspec(model)}
    return _save(ctx, parts, filename_prefix, model.ref.title, about, _marks(model))


@node("ModelSave", title="ModelSave", title_zh="保存扩散模型", category=CATEGORY, output_node=True, hidden=HIDDEN)
def model_save(
    ctx: NodeContext, model: MODEL, filename_prefix: Annotated[str, _prefix("diffusion_models/ComfyUI")]
) -> dict[str, Any]:
    """The denoiser alone, for UNETLoader."""
    about = {**saving.about_parts(model, None, None), **_modelspec(model)}
    return _save(ctx, [saving.denoiser_part(model)], filename_prefix, model.ref.title, about, _marks(model))


@node("CLIPSave", title="CLIPSave", title_zh="保存 CLIP", category=CATEGORY, output_node=True, hidden=HIDDEN)
def clip_save(ctx: NodeContext, clip: CLIP, filename_prefix: Annotated[str, _prefix("clip/ComfyUI")]) -> dict[str, Any]:
    """Every text encoder in a file of its own, whose name says which it is."""
    about, saved = saving.about_parts(None, clip, None), []
    for name, part in saving.text_parts_alone(clip).items():
        made = _save(ctx, [part], f"{filename_prefix}_{name}", part.ref.title, about)
        saved += made.get("ui", {}).get("models", [])
    return {"ui": {"models": saved}} if saved else {}


@node("VAESave", title="VAESave", title_zh="保存 VAE", category=CATEGORY, output_node=True, hidden=HIDDEN)
def vae_save(ctx: NodeContext, vae: VAE, filename_prefix: Annotated[str, _prefix("vae/ComfyUI_vae")]) -> dict[str, Any]:
    return _save(ctx, [saving.vae_part(vae)], filename_prefix, vae.ref.title, saving.about_parts(None, None, vae))


def _save(
    ctx: NodeContext,
    parts: Sequence[saving.Part],
    prefix: str,
    title: str,
    about: Mapping[str, str],
    marks: Mapping[str, Tensor] | None = None,
) -> dict[str, Any]:
    if ctx.draft:
        return {}  # nothing was computed that is worth two gigabytes
    files = next_files(ctx.workspace.output, prefix)
    name = files.name(0, ".safetensors")
    marks = marks or {}
    names = [*marks, *saving.names_of(ctx.models, parts)]
    metadata = {"format": "pt", **about, **workflow_of(ctx)}
    if "modelspec.architecture" in about:
        metadata["modelspec.title"] = f"{files.stem} {files.first}"

    def tensors() -> Iterator[tuple[str, Tensor]]:
        yield from marks.items()
        for done, (name, tensor) in enumerate(saving.tensors_of(ctx.models, parts)):
            ctx.interrupt_check()
            ctx.progress(min(done, len(names)), len(names))
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise NotFiniteWeights(name=name, title=title)
            yield name, tensor

    with replacing(files.folder / name) as file:
        write_tensors(file, names, tensors(), metadata)
    return {"ui": {"models": [{"filename": name, "subfolder": files.subfolder, "type": "output"}]}}


def _modelspec(model: Model) -> dict[str, str]:
    """Stability's standard, 1.0.1: https://github.com/Stability-AI/ModelSpec"""
    spec = model.family.spec
    words = {
        "sai_model_spec": "1.0.0",
        "architecture": spec.architecture,
        "implementation": spec.implementation,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "prediction_type": PREDICTED.get(model.prediction, model.prediction),
    }
    if model.prediction in PREDICTED:
        words["predict_key"] = PREDICTED[model.prediction]
    return {f"modelspec.{key}": text for key, text in words.items()}


def _marks(model: Model) -> dict[str, Tensor]:
    """Tensors by which files say how a model was trained: in continuous time, or, empty ones, that it predicts v and
    that its training ended in noise alone."""
    if continuous := edm.marks_of(model):
        return continuous
    if model.prediction != "v":
        return {}
    schedule = model.schedule or model.family.schedule(model)
    noise_alone = isinstance(schedule, DiscreteSchedule) and schedule.sigma_max > PURE_NOISE
    return {name: torch.tensor([]) for name in ("v_pred", *(["ztsnr"] if noise_alone else []))}


def workflow_of(ctx: NodeContext) -> dict[str, str]:
    values = {"prompt": ctx.prompt, **ctx.extra_pnginfo}
    return {name: json.dumps(value) for name, value in values.items()}
