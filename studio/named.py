"""Is what a job names there? Asked before it is queued, so that nobody waits in line for a job that can't run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.dataset.library import Library
from engine.errors import CHECK_PATH, NotFound
from engine.workspace import Workspace
from taggers.catalogue import captioner, kind_of, tagger


def check_named(workspace: Workspace, kind: str, settings: Mapping[str, Any]) -> None:
    """Raises NotFound for a dataset, tagger or model that is not there. Values of a wrong type are not its business."""
    if kind == "train":
        dataset, model = settings.get("dataset", ""), settings.get("model", "")
        if isinstance(dataset, str):
            _check_pictures(workspace, dataset)
        if isinstance(model, str):
            workspace.model_path("checkpoints", model)
    elif kind in ("tag", "scan", "measure", "unpack", "look"):
        if isinstance(dataset := settings.get("dataset"), str):
            Library(workspace).folder_of(dataset)
        if kind == "tag":
            _check_tools(workspace, settings)


def _check_tools(workspace: Workspace, settings: Mapping[str, Any]) -> None:
    tools = settings.get("tools")
    rows = [row for row in tools if isinstance(row, Mapping)] if isinstance(tools, list | tuple) else []
    for row in (settings, *rows):
        if isinstance(name := row.get("tagger"), str) and (name or row is not settings):
            tagger(workspace, name)
    for row in rows:
        if row.get("kind") not in ("onnx", "endpoint") and isinstance(name := row.get("model"), str):
            kind_of(captioner(workspace, name))


def _check_pictures(workspace: Workspace, dataset: str) -> None:
    folder = Path(dataset).expanduser() if dataset.startswith("~") else Path(dataset)
    if not folder.is_absolute():
        Library(workspace).folder_of(dataset)
    elif not os.path.isdir(folder):
        raise NotFound(what="folder", what_zh="文件夹", name=dataset, **CHECK_PATH)
