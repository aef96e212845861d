"""Runs API prompts as a client would send them, and measures how far their latents are from another program's.

studio = Studio(tmp_path)
graph = GraphBuilder("")
...
assert apart(studio.latent(graph, sampler.out(0)), theirs) <= CLOSE
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from engine.graph.builder import GraphBuilder
from engine.graph.catalogue import Catalogue
from engine.graph.executor import Executor, RunContext
from engine.graph.registry import Registry
from engine.graph.strategies import cache_for
from engine.graph.validation import validate
from engine.models.device import open_device
from engine.models.manager import ModelManager
from engine.nodes import load_all
from engine.workspace import Workspace

CLOSE = 2e-5  # relative L2 of latents, as of the recorded cases
SEED = 7


class Studio:
    """An executor and a manager over a workspace of its own."""

    def __init__(self, root: Path) -> None:
        self.workspace = Workspace(root, allow_pickle=True).create()
        self.registry = Registry()
        load_all(self.registry)
        self.manager = ModelManager(open_device("cpu"))

    def path(self, folder: str, name: str) -> Path:
        """Of a model file."""
        return self.workspace.models / folder / name

    def picture(self, name: str, width: int, height: int, seed: int = 0) -> Image.Image:
        """A picture of random blocks in the input folder."""
        drawn = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        image = Image.fromarray(drawn).resize((width, height), Image.Resampling.BICUBIC)
        image.save(self.workspace.input / name)
        return image

    def latent(self, graph: GraphBuilder, link: list[Any]) -> Tensor:
        """What SaveLatent writes of that link: in the VAE's scale."""
        saved = graph.node("SaveLatent", samples=link, filename_prefix="latent")
        (entry,) = self.run(graph)[saved.id]["latents"]
        return load_file(self.workspace.output / entry["subfolder"] / entry["filename"])["latent_tensor"]

    def image(self, graph: GraphBuilder, link: list[Any]) -> np.ndarray[Any, Any]:
        """What SaveImage writes of that link, as (height, width, 3) of 0 .. 255."""
        saved = graph.node("SaveImage", images=link, filename_prefix="picture")
        (entry,) = self.run(graph)[saved.id]["images"]
        return np.asarray(Image.open(self.workspace.output / entry["subfolder"] / entry["filename"])).astype(int)

    def run(self, graph: GraphBuilder) -> dict[str, Any]:
        prompt = json.loads(json.dumps(graph.finalize()))
        checked = validate(prompt, Catalogue.of(self.registry), self.workspace)
        assert checked.error is None and not checked.node_errors, (checked.error, checked.node_errors)
        context = RunContext("job", self.workspace, self.manager, prompt)
        executor = Executor(self.registry, cache_for("none"), torch.no_grad)
        outcome = executor.run(checked.prompt, context, checked.outputs, lambda event, data: None)
        if outcome.error is not None:
            raise outcome.error
        return outcome.outputs


def apart(ours: Tensor, theirs: Tensor) -> float:
    """Relative L2."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


def noise(*shape: int, seed: int = SEED) -> Tensor:
    """What a run of that seed starts with."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
