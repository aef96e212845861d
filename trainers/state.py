"""What a killed run goes on from: adapters, optimiser and step, in one file that is written whole or not at all.

Everything else a run draws or shows is a function of the seed and the step. The last two states are kept.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from engine.workspace import replacing

KEPT = 2
_NAME = re.compile(r"step-(\d+)\.safetensors")


@dataclass(frozen=True)
class State:
    """After `step` finished steps."""

    step: int
    adapters: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any] | None = None


def save_state(folder: Path, state: State) -> Path:
    """Write it, then drop all but the newest two. Raises DiskFull and leaves the older ones as they were."""
    tensors = {f"adapter/{name}": t.detach().cpu().contiguous() for name, t in state.adapters.items()}
    plain: dict[str, dict[str, Any]] = {}
    for index, values in state.optimizer["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer/{index}/{name}"] = value.detach().cpu().contiguous()
            else:
                plain.setdefault(str(index), {})[name] = value
    about = {"step": state.step, "groups": state.optimizer["param_groups"], "plain": plain, "scaler": state.scaler}
    path = folder / f"step-{state.step:07d}.safetensors"
    with replacing(path) as file:
        file.write(save(tensors, {"state": json.dumps(about)}))
    for old in _states(folder)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def load_state(folder: Path) -> State | None:
    """The newest state that can be read; None when there is none."""
    for path in reversed(_states(folder)):
        try:
            return _read(path)
        except (OSError, SafetensorError, KeyError, ValueError):
            continue
    return None


def _read(path: Path) -> State:
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["state"])
        # cloned: how memory of a file is aligned must not reach the arithmetic
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    optimizer: dict[int, dict[str, Any]] = {int(i): dict(values) for i, values in about["plain"].items()}
    for name, tensor in tensors.items():
        if name.startswith("optimizer/"):
            _, index, key = name.split("/", 2)
            optimizer.setdefault(int(index), {})[key] = tensor
    adapters = {name.removeprefix("adapter/"): t for name, t in tensors.items() if name.startswith("adapter/")}
    return State(about["step"], adapters, {"state": optimizer, "param_groups": about["groups"]}, about["scaler"])


def _states(folder: Path) -> list[Path]:
    """Oldest first."""
    return sorted(p for p in folder.glob("step-*.safetensors") if _NAME.fullmatch(p.name))
