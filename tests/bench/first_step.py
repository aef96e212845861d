"""Memory and time of SD 1.5's first step on a CPU, beside what the bare models need for the same call.

    python -m tests.bench.first_step FILE.safetensors

Two processes, one after the other: a prompt of one step at 512 x 512 with guidance through our executor, and the bare
text encoder and UNet in float32, called once with as large a batch. Each tells its peak of resident memory.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main(path: Path) -> None:
    ours, bare = (_child(kind, path) for kind in ("ours", "bare"))
    print(f"ours: {ours[0]:.2f} s, peak {ours[1] / 1e9:.2f} GB")
    print(f"bare: {bare[0]:.2f} s, peak {bare[1] / 1e9:.2f} GB")
    print(f"peak {ours[1] / bare[1]:.3f} x the bare models' (at most 1.05)")


def _child(kind: str, path: Path) -> tuple[float, int]:
    """(seconds, peak in bytes) of a process that has nothing else in it."""
    command = [sys.executable, "-m", "tests.bench.first_step", kind, str(path)]
    words = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.split()
    return float(words[-2]), int(words[-1])


def _ours(path: Path) -> None:
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

    registry = Registry()
    load_all(registry)
    with tempfile.TemporaryDirectory() as folder:
        space = Workspace(Path(folder), extra={"checkpoints": (path.parent,)})
        space.create()
        checked = validate(_prompt(path.name), Catalogue.of(registry), space)
        assert checked.error is None and not checked.node_errors, checked
        context = RunContext("bench", space, ModelManager(open_device("cpu")), checked.prompt)
        executor = Executor(registry, cache_for("classic"), torch.no_grad)
        outcome = executor.run(checked.prompt, context, checked.outputs, lambda event, data: None)
        if outcome.error is not None:
            raise outcome.error


def _prompt(checkpoint: str) -> dict[str, Any]:
    def node(kind: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": kind, "inputs": inputs}

    run = {"seed": 1, "steps": 1, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "2": node("CLIPTextEncode", clip=["1", 1], text="a lighthouse"),
        "3": node("CLIPTextEncode", clip=["1", 1], text="fog"),
        "4": node("EmptyLatentImage", width=512, height=512, batch_size=1),
        "5": node("KSampler", model=["1", 0], positive=["2", 0], negative=["3", 0], latent_image=["4", 0], **run),
        "6": node("SaveLatent", samples=["5", 0], filename_prefix="bench"),
    }


def _bare() -> None:
    import torch
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
    with torch.device("meta"):
        text = CLIPTextModel(CLIPTextConfig(**sizes))
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, sample_size=64)
    for module in (text, unet):
        module.to_empty(device="cpu")
        for parameter in module.parameters():
            parameter.data.fill_(1.0)
    with torch.no_grad():
        positions = torch.arange(77)[None]
        hidden = text(torch.ones(2, 77, dtype=torch.long), position_ids=positions).last_hidden_state
        unet(torch.zeros(2, 4, 64, 64), torch.tensor([500.0]), encoder_hidden_states=hidden)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(Path(sys.argv[1]))
    else:
        start = time.perf_counter()
        _ours(Path(sys.argv[2])) if sys.argv[1] == "ours" else _bare()
        print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
