"""Nodes that load models from files. Nothing but headers is read here: weights come when something first runs."""

from __future__ import annotations

import math
from typing import Annotated, Any

from engine.families.base import Clip, Model, Vae
from engine.families.discover import family_of, family_of_vae
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
    return file_digest(ctx, "vae", vae_name)


@node(
    "VAELoader",
    title="Load VAE",
    title_zh="加载 VAE",
    category="loaders",
    outputs=[Out("VAE")],
    fingerprint=_vae_digest,
)
def vae_loader(ctx: NodeContext, vae_name: Annotated[str, In(Models("vae"))]) -> tuple[Vae]:
    path = ctx.workspace.model_path("vae", vae_name)
    allow_pickle = ctx.workspace.allow_pickle
    family = family_of_vae(open_header(path, allow_pickle=allow_pickle))
    return (family.load_vae(ctx.models, path, allow_pickle=allow_pickle),)


def file_digest(ctx: NodeContext, folder: str, name: str | None) -> Any:
    """A file's identity, for cache keys: a file that was replaced is loaded anew. NaN (never cached) for a link."""
    if name is None:
        return math.nan
    path = ctx.workspace.model_path(folder, name)
    status = path.stat()
    return f"{path} {status.st_size} {status.st_mtime_ns}"
