"""Packs of tests/custom/packs, loaded once, and a runner that judges and runs prompts with their nodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.custom.host import Host
from engine.custom.packs import Pack, load_packs
from engine.graph.cache import ClassicCache
from engine.graph.catalogue import Catalogue
from engine.graph.context import RunContext
from engine.graph.executor import Executor, Outcome
from engine.graph.job import custom_checks
from engine.graph.registry import Registry
from engine.graph.validation import Validation, validate
from engine.models.device import open_device
from engine.models.manager import ModelManager
from engine.nodes import load_all
from engine.workspace import Workspace

PACKS = Path(__file__).parent / "packs"


@dataclass
class Packs:
    """A worker's view of packs, and what was told."""

    workspace: Workspace
    host: Host
    packs: list[Pack]
    executor: Executor
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    messages: list[tuple[str, Any, str | None]] = field(default_factory=list)
    previews: list[Any] = field(default_factory=list)

    def pack(self, name: str) -> Pack:
        return next(pack for pack in self.packs if pack.name == name)

    def judge(self, prompt: dict[str, Any]) -> Validation:
        registry = self.host.registry
        return validate(
            prompt,
            Catalogue.of(registry),
            self.workspace,
            ask=lambda checks: custom_checks(registry, self.workspace, checks),
        )

    def run(self, prompt: dict[str, Any], **extra_data: Any) -> Outcome:
        found = self.judge(prompt)
        assert not found.error and not found.node_errors, found.to_json()
        self.events.clear()
        assert self.host.models
        context = RunContext(
            "prompt-1",
            self.workspace,
            self.host.models,
            prompt,
            extra_data,
            preview=lambda image, about: self.previews.append((image.size, about["node_id"])),
        )
        return self.executor.run(found.prompt, context, found.outputs, lambda *event: self.events.append(event))

    def ran(self) -> list[str]:
        return [data["node"] for event, data in self.events if event == "executing"]


@pytest.fixture(scope="package")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Packs:
    workspace = Workspace(tmp_path_factory.mktemp("space")).create()
    (workspace.input / "a.txt").write_text("a")
    registry = Registry()
    load_all(registry)
    host = Host(workspace, ModelManager(open_device("cpu")), registry)
    packs = load_packs([PACKS, workspace.root / "custom_nodes"], host)
    found = Packs(workspace, host, packs, Executor(registry, ClassicCache(), torch.no_grad))
    host.emit = lambda event, data, sid: found.messages.append((event, data, sid))
    return found


@pytest.fixture
def packs(loaded: Packs) -> Iterator[Packs]:
    loaded.executor.cache.clear()
    loaded.executor.bound.clear()
    loaded.messages.clear()
    loaded.previews.clear()
    yield loaded
