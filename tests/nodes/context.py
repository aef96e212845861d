"""A node's context for tests that call nodes as functions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engine.models.device import open_device
from engine.models.manager import ModelManager
from engine.workspace import Workspace


@dataclass
class Context:
    """A NodeContext with nothing behind it."""

    workspace: Workspace
    models: ModelManager = field(default_factory=lambda: ModelManager(open_device("cpu")))
    live: dict[str, Any] = field(default_factory=dict)
    graph: Any = None
    prompt: dict[str, Any] = field(default_factory=dict)
    extra_pnginfo: dict[str, Any] = field(default_factory=dict)
    node_id: str = "1"
    job_id: str = "job"
    draft: bool = False
    preview_method: str = "auto"
    warnings: list[tuple[str, str]] = field(default_factory=list)

    def progress(self, step: int, total: int) -> None: ...

    def warn(self, en: str, zh: str) -> None:
        self.warnings.append((en, zh))

    def preview(self, image: Any) -> None: ...

    def interrupt_check(self) -> None: ...
