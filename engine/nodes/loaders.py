"""Nodes that load models from files. Nothing but headers is read here: weights come when something first runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

from engine.families import approximate
from engine.families.base import Clip, Model, Vae, WeightDtype
from engine.families.clip_types import clip_types, dual_clip_types
from engine.families.discover import family_of, family_of_clip, family_of_denoiser, family_of_vae
from engine.graph.node import In, Models, NodeContext, Out, node
from engine.weights.load import open_header

CheckpointName = Annotated[str, In(Models("checkpoints"), tooltip="The name of the checkpoint (model) to load.")]


def _checkpoint_digest(ctx: NodeContext, ckpt_name: str) -> Any:
    return file_digest(ctx, "checkpoints", ckpt_name)


@node(
    "CheckpointLoaderSimple",
    title="Load Checkpoint",
    title_zh="加载检查点",
    category="loaders",
    outputs=[Out("MODEL"), Out("CLIP"), Out("VAE")],
    fingerprint=_checkpoint_digest,
)
def checkpoint_loader_simple(ctx: NodeContext, ckpt_name: CheckpointName) -> tuple[Model, Clip, Vae]:
    """The denoiser, the text encoder and the VAE of one file, whatever family it is of."""
    path = ctx.workspace.model_path("checkpoints", ckpt_name)
    allow_pickle = ctx.workspace.allow_pickle
    family = family_of(open_header(path, allow_pickle=allow_pickle))
    embeddings = ctx.workspace.model_roots("embeddings")
    parts = family.load_checkpoint(ctx.models, path, embeddings, allow_pickle=allow_pickle)
    return parts.model, parts.clip, parts.vae


def _vae_digest(ctx: NodeContext, vae_name: str) -> Any:
    if vae_name in approximate.FAMILIES:
        return " ".join(path_digest(path) for path in approximate.files_of(ctx.workspace, vae_name))
    return file_digest(ctx, "vae", vae_name)


@node(
    "VAELoader",
    title="Load VAE",
    title_zh="加载 VAE",
    category="loaders",
    outputs=[Out("VAE")],
    fingerprint=_vae_digest,
)
def vae_loader(ctx: NodeContext, vae_name: Annotated[str, In(approximate.vae_names)]) -> tuple[Vae]:
    """Of a file, or one of the small stand-ins whose files lie in models/vae_approx."""
    if vae_name in approximate.FAMILIES:
        return (approximate.load_approximate(ctx.models, ctx.workspace, vae_name),)
    path = ctx.workspace.model_path("vae", vae_name)
    allow_pickle = ctx.workspace.allow_pickle
    family = family_of_vae(open_header(path, allow_pickle=allow_pickle))
    return (family.load_vae(ctx.models, path, allow_pickle=allow_pickle),)


def _unet_digest(ctx: NodeContext, unet_name: str) -> Any:
    return file_digest(ctx, "diffusion_models", unet_name)


@node(
    "UNETLoader",
    title="Load Diffusion Model",
    title_zh="加载扩散模型",
    category="advanced/loaders",
    outputs=[Out("MODEL")],
    fingerprint=_unet_digest,
)
def unet_loader(
    ctx: NodeContext,
    unet_name: Annotated[str, In(Models("diffusion_models"))],
    weight_dtype: Annotated[WeightDtype, In(list(get_args(WeightDtype)))],
) -> tuple[Model]:
    """A denoiser alone in a file, of any family."""
    path = ctx.workspace.model_path("diffusion_models", unet_name)
    allow_pickle = ctx.workspace.allow_pickle
    family = family_of_denoiser(open_header(path, allow_pickle=allow_pickle))
    return (family.load_denoiser(ctx.models, path, weight_dtype=weight_dtype, allow_pickle=allow_pickle),)


ClipName = Annotated[str, In(Models("text_encoders"))]
# On the CPU or where the manager puts it: the manager owns the device and moves a text encoder off by itself.
ClipDevice = Annotated[str, In(["default", "cpu"], advanced=True)]


def _clip_digest(ctx: NodeContext, clip_name: str) -> Any:
    return file_digest(ctx, "text_encoders", clip_name)


@node(
    "CLIPLoader",
    title="Load CLIP",
    title_zh="加载 CLIP",
    category="advanced/loaders",
    outputs=[Out("CLIP")],
    fingerprint=_clip_digest,
)
def clip_loader(
    ctx: NodeContext, clip_name: ClipName, type: Annotated[str, In(clip_types)], device: ClipDevice = "default"
) -> tuple[Clip]:
    """One text encoder alone in a file."""
    return (_clip(ctx, (clip_name,), type),)


def _clips_digest(ctx: NodeContext, clip_name1: str, clip_name2: str) -> Any:
    return [file_digest(ctx, "text_encoders", name) for name in (clip_name1, clip_name2)]


@node(
    "DualCLIPLoader",
    title="DualCLIPLoader",
    title_zh="加载双 CLIP",
    category="advanced/loaders",
    outputs=[Out("CLIP")],
    fingerprint=_clips_digest,
)
def dual_clip_loader(
    ctx: NodeContext,
    clip_name1: ClipName,
    clip_name2: ClipName,
    type: Annotated[str, In(dual_clip_types)],
    device: ClipDevice = "default",
) -> tuple[Clip]:
    """Two text encoders, in any order."""
    return (_clip(ctx, (clip_name1, clip_name2), type),)


def _three_clips_digest(ctx: NodeContext, clip_name1: str, clip_name2: str, clip_name3: str) -> Any:
    return [file_digest(ctx, "text_encoders", name) for name in (clip_name1, clip_name2, clip_name3)]


@node(
    "TripleCLIPLoader",
    title="TripleCLIPLoader",
    title_zh="加载三 CLIP",
    category="advanced/loaders",
    outputs=[Out("CLIP")],
    fingerprint=_three_clips_digest,
)
def triple_clip_loader(
    ctx: NodeContext, clip_name1: ClipName, clip_name2: ClipName, clip_name3: ClipName
) -> tuple[Clip]:
    """Three text encoders, in any order: Stable Diffusion 3 has so many."""
    return (_clip(ctx, (clip_name1, clip_name2, clip_name3), "sd3"),)


def _clip(ctx: NodeContext, names: Sequence[str], type: str) -> Clip:
    paths = [ctx.workspace.model_path("text_encoders", name) for name in names]
    allow_pickle = ctx.workspace.allow_pickle
    family = family_of_clip([open_header(path, allow_pickle=allow_pickle) for path in paths], type)
    return family.load_clip(ctx.models, paths, ctx.workspace.model_roots("embeddings"), allow_pickle=allow_pickle)


def file_digest(ctx: NodeContext, folder: str, name: str | None) -> Any:
    """A file's identity, for cache keys: a file that was replaced is loaded anew. NaN (never cached) for a link."""
    if name is None:
        return math.nan
    return path_digest(ctx.workspace.model_path(folder, name))


def path_digest(path: Path) -> str:
    status = path.stat()
    return f"{path} {status.st_size} {status.st_mtime_ns}"
