"""Loaders of the field's older ways: folders as diffusers saves them, checkpoints with a config file beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from engine.errors import FileError
from engine.families.base import Clip, Model, Vae
from engine.families.discover import family_of
from engine.graph.node import In, Models, NodeContext, Out, node
from engine.nodes.loaders import CheckpointName, checkpoint_loader_simple, file_digest
from engine.weights.load import open_header

OUTPUTS = (Out("MODEL"), Out("CLIP"), Out("VAE"))


class BadConfig(FileError):
    en = "{path} is no config of a checkpoint: {reason}. Use Load Checkpoint, which needs none."
    zh = "{path} 不是检查点的配置文件：{reason}。请使用无需配置文件的“加载检查点”。"


def _folder_digest(ctx: NodeContext, model_path: str | None) -> Any:
    if model_path is None:
        return float("nan")
    return open_header(ctx.workspace.model_path("diffusers", model_path)).digest


@node(
    "DiffusersLoader",
    title="DiffusersLoader",
    title_zh="加载 Diffusers 文件夹",
    category="advanced/loaders/deprecated",
    outputs=OUTPUTS,
    fingerprint=_folder_digest,
)
def diffusers_loader(ctx: NodeContext, model_path: Annotated[str, In(Models("diffusers"))]) -> tuple[Model, Clip, Vae]:
    """A folder with unet or transformer, vae and text encoders, each with its config."""
    path = ctx.workspace.model_path("diffusers", model_path)
    parts = family_of(open_header(path)).load_checkpoint(ctx.models, path, ctx.workspace.model_roots("embeddings"))
    return parts.model, parts.clip, parts.vae


def _digests(ctx: NodeContext, config_name: str | None, ckpt_name: str | None) -> Any:
    return [file_digest(ctx, "configs", config_name), file_digest(ctx, "checkpoints", ckpt_name)]


@node(
    "CheckpointLoader",
    title="Load Checkpoint With Config (DEPRECATED)",
    title_zh="加载检查点（带配置，已弃用）",
    category="advanced/loaders",
    outputs=OUTPUTS,
    deprecated=True,
    fingerprint=_digests,
)
def checkpoint_loader(
    ctx: NodeContext, config_name: Annotated[str, In(Models("configs"))], ckpt_name: CheckpointName
) -> tuple[Model, Clip, Vae]:
    """Of the config two things count: whether the model predicts v, and which layer of CLIP is read. What else it says
    the checkpoint's own tensors tell."""
    predicts_v, layer = _read(ctx.workspace.model_path("configs", config_name))
    model, clip, vae = checkpoint_loader_simple(ctx, ckpt_name)
    if predicts_v:
        model = replace(model, prediction="v")
    return model, clip if layer is None else replace(clip, stop_at_layer=layer), vae


def _read(path: Path) -> tuple[bool, int | None]:
    """(predicts v, layer of CLIP) of a config of LDM's. Raises BadConfig."""
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
        parameters = data["model"]["params"]
        text = parameters["cond_stage_config"].get("params") or {}
        layer = text.get("layer_idx")
        return parameters.get("parameterization") == "v", None if layer is None else int(layer)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise BadConfig(path=path, reason=str(error).splitlines()[0][:200]) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadConfig(path=path, reason=f"model.params.cond_stage_config can't be read ({error})") from error
