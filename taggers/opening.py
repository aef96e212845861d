"""From a tool's settings to its reader. Runs in the worker; every reader's own libraries are imported when it opens."""

from __future__ import annotations

import importlib

from engine.models.manager import ModelManager
from engine.workspace import Workspace
from taggers.catalogue import CAPTIONERS, captioner, kind_of, tagger
from taggers.folder import BrokenFolder
from taggers.reader import Reader
from taggers.settings import Captioner, OnnxTool


def open_reader(workspace: Workspace, manager: ModelManager, tool: OnnxTool | Captioner) -> Reader:
    """Raises NotFound and what is wrong with the files."""
    if isinstance(tool, OnnxTool):
        from taggers.onnx_reader import OnnxReader

        return OnnxReader(manager, tagger(workspace, tool.tagger), tool)
    kind = next(kind for kind in CAPTIONERS if kind.name == tool.kind)
    folder = None
    if kind.recognise is not None:
        folder = captioner(workspace, tool.model)
        if kind_of(folder) is not kind:
            raise BrokenFolder(name=folder.name, reason=f"it is a {kind_of(folder).title}, not a {kind.title}")
    module, _, function = kind.reader.partition(":")
    return getattr(importlib.import_module(module), function)(manager, folder, tool)
