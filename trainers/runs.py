"""A training run's folder: what it was told, how it went, what it made. Torch-free: the server and the tabs read it.

runs/NAME/
    config.toml      the settings, complete
    run.json         job, name, base model, result
    pictures.json    the pictures and captions it trains on, frozen at its start
    metrics.jsonl    one line a step: step, loss, lr, grad_norm, time
    samples/         step0000100_00.png ..., prompts.json
    checkpoints/     NAME-0000500.safetensors ...
    state/           what a killed run goes on from
    tensorboard/
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.dataset.library import safe_name
from engine.errors import NotFound
from engine.workspace import Workspace, inside, replacing
from trainers.settings import TrainSettings

_SAMPLE = re.compile(r"step(\d+)_(\d+)\.png")


@dataclass(frozen=True)
class Sample:
    step: int
    index: int  # place among the sample prompts
    path: Path


@dataclass(frozen=True)
class Run:
    """The folder of one run. It need not exist yet."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def config(self) -> Path:
        return self.root / "config.toml"

    @property
    def pictures(self) -> Path:
        return self.root / "pictures.json"

    @property
    def metrics_file(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def samples_folder(self) -> Path:
        return self.root / "samples"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def tensorboard(self) -> Path:
        return self.root / "tensorboard"

    def lora(self, workspace: Workspace) -> Path:
        """Where the finished LoRA goes."""
        return workspace.models / "loras" / f"{self.name}.safetensors"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"{self.name}-{step:07d}.safetensors"

    def sample_path(self, step: int, index: int) -> Path:
        return self.samples_folder / f"step{step:07d}_{index:02d}.png"

    def info(self) -> dict[str, Any]:
        """run.json: {"job", "model", "created", "lora": file name once it is exported}."""
        try:
            return json.loads((self.root / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def update_info(self, **values: Any) -> None:
        with replacing(self.root / "run.json", "w") as file:
            json.dump(self.info() | values, file, ensure_ascii=False)

    def metrics(self, since: int = 0) -> list[dict[str, float]]:
        """The lines of steps after `since`. A line that a kill cut off is left out."""
        return [row for row in self._rows() if row["step"] > since]

    def forget_metrics_after(self, step: int) -> None:
        """A resumed run does those steps again."""
        rows = [row for row in self._rows() if row["step"] <= step]
        with replacing(self.metrics_file, "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    def samples(self) -> list[Sample]:
        found = ((_SAMPLE.fullmatch(p.name), p) for p in self.samples_folder.glob("step*_*.png"))
        return sorted((Sample(int(m[1]), int(m[2]), p) for m, p in found if m), key=lambda s: (s.step, s.index))

    def _rows(self) -> Iterator[dict[str, float]]:
        if not self.metrics_file.is_file():
            return
        for line in self.metrics_file.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and "step" in row:
                yield row


def run_name(settings: TrainSettings) -> str:
    """What the run and its LoRA are called: the name, else the trigger word, else the dataset."""
    return safe_name(settings.name or settings.trigger_word or Path(settings.dataset).name) or "lora"


def run_of(workspace: Workspace, settings: TrainSettings, job_id: str) -> Run:
    """The run of a job: the same folder each time the job is run, so that it finds its state. A new one is called as
    the settings say, or NAME-2 and so on where there is such a run or LoRA already: neither is ever written over."""
    name, number = run_name(settings), 1
    while True:
        run = Run(inside(workspace.runs, name if number == 1 else f"{name}-{number}"))
        if run.info().get("job") == job_id:
            return run
        if not run.root.exists() and not run.lora(workspace).exists():
            return run
        number += 1


def open_run(workspace: Workspace, name: str) -> Run:
    run = Run(inside(workspace.runs, name))
    if not run.root.is_dir():
        raise NotFound(
            what="run", what_zh="训练记录", name=name, remedy="Choose one from the list.", remedy_zh="请从列表中选择。"
        )
    return run


def list_runs(workspace: Workspace) -> list[Run]:
    """Newest first."""
    if not workspace.runs.is_dir():
        return []
    runs = [Run(p) for p in workspace.runs.iterdir() if (p / "run.json").is_file()]
    return sorted(runs, key=lambda run: -float(run.info().get("created", 0)))
