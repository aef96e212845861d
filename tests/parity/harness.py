"""Runs recorded workflows with our executor and says how far their results are from what was recorded."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from engine.graph.catalogue import Catalogue
from engine.graph.executor import Executor, RunContext
from engine.graph.registry import Registry
from engine.graph.strategies import cache_for
from engine.graph.validation import validate
from engine.models.device import open_device
from engine.models.manager import ModelManager
from engine.nodes import load_all
from engine.workspace import Workspace
from tests.parity.compare import difference

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Comparison:
    """A recording, and what to change in the case's prompt to get it: {(node id, input): value}."""

    recorded: str
    changes: Mapping[tuple[str, str], Any] = field(default_factory=dict)


class Harness:
    """One executor and one manager for the cases of a test file. `ran` holds the names of the cases that passed."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.registry = Registry()
        load_all(self.registry)
        self.executor = Executor(self.registry, cache_for("classic"), torch.no_grad)
        self.manager = ModelManager(open_device("cpu"))
        self.ran: set[str] = set()

    def close(self) -> None:
        """Its models go: the next file's would not fit beside Flux'."""
        self.manager.trim()
        gc.collect()

    def run(self, name: str, changes: Mapping[tuple[str, str], Any]) -> dict[str, Any]:
        """The outputs of a case's prompt."""
        prompt = json.loads((HERE / "cases" / name / "api.json").read_text())
        for (node_id, key), value in changes.items():
            assert prompt[node_id]["inputs"][key] != value
            prompt[node_id]["inputs"][key] = value
        checked = validate(prompt, Catalogue.of(self.registry), self.workspace)
        assert checked.error is None and not checked.node_errors, checked.node_errors
        context = RunContext(name, self.workspace, self.manager, prompt)
        outcome = self.executor.run(checked.prompt, context, checked.outputs, lambda event, data: None)
        if outcome.error is not None:
            raise outcome.error
        return outcome.outputs

    def check(self, name: str, *comparisons: Comparison) -> None:
        """Fails unless everything recorded for the case is met; by default as it was recorded."""
        for comparison in comparisons or (Comparison(name),):
            outputs = self.run(name, comparison.changes)
            files = [p for p in (HERE / "cases" / comparison.recorded).iterdir() if p.suffix in (".png", ".latent")]
            assert files
            wrong = [difference(file, self._made(outputs, file.stem, file.suffix)) for file in files]
            assert not any(wrong), [words for words in wrong if words]
        self.ran.add(name)

    def _made(self, outputs: dict[str, Any], recorded: str, suffix: str) -> Path:
        """The file we saved for a recorded "node8_1": the second one of node 8."""
        node_id, _, index = recorded.removeprefix("node").partition("_")
        kind = "images" if suffix == ".png" else "latents"
        entry = outputs[node_id][kind][int(index)]
        root = self.workspace.temp if entry["type"] == "temp" else self.workspace.output
        return root / entry["subfolder"] / entry["filename"]
