"""Sample pictures of a running training, made by the graph that Generate submits, with the LoRA under training as a
live adapter. They draw their own random numbers, so that a training with samples is the one without them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.errors import Cancelled
from engine.families.base import Components, LiveLora
from engine.graph.job import GenerateSettings, Live
from engine.graph.job import run as run_graph
from engine.graph.registry import Registry
from engine.jobs.types import JobContext, JobSpec
from engine.workflows import LoraChoice, PictureSettings, text_to_image
from engine.workspace import replacing
from trainers.adapters import live_entries
from trainers.loop import Trainer
from trainers.runs import Run
from trainers.settings import TrainSettings

if TYPE_CHECKING:
    from PIL.Image import Image


class Samples:
    """The sample pictures of one run. What the graph keeps between them (the loaded models' links) is its own."""

    def __init__(self, ctx: JobContext, settings: TrainSettings, run: Run, components: Components) -> None:
        self._ctx = ctx
        self._settings = settings
        self._run = run
        self._factor = components.vae.factor
        self._lora = run.lora(ctx.workspace).name
        self._kept: dict[type, Any] = {}

    def due(self, step: int) -> bool:
        """Every so many steps, before the first and after the last; only what is missing."""
        settings = self._settings
        if not settings.sample_every or not settings.sample_prompts:
            return False
        wanted = step % settings.sample_every == 0 or step == settings.steps
        return wanted and any(not self._run.sample_path(step, i).exists() for i in range(len(settings.sample_prompts)))

    def draw(self, step: int, trainer: Trainer, checkpoint: Callable[[], None]) -> None:
        """The pictures of this step that are missing; others are let in (`checkpoint`) between two of them. The trainer
        must have given its lease up."""
        self._run.samples_folder.mkdir(parents=True, exist_ok=True)
        with replacing(self._run.samples_folder / "prompts.json", "w") as file:
            json.dump(self._settings.sample_prompts, file, ensure_ascii=False)
        entries = live_entries(trainer.parts, self._settings.scale_alpha)
        live = Live({self._lora: LiveLora(f"{self._run.name}@{step}", entries)})
        kept = self._kept | {Registry: self._ctx.kept[Registry], Live: live}
        for index, prompt in enumerate(self._settings.sample_prompts):
            target = self._run.sample_path(step, index)
            if target.exists():
                continue
            checkpoint()
            context = _SampleContext(self._ctx, self._run, kept, index, len(self._settings.sample_prompts))
            graph = text_to_image(self._picture(prompt, index, target.stem))
            result = run_graph(context, GenerateSettings(prompt=graph, outputs=["7"]))
            (made,) = result["outputs"]["7"]["images"]
            os.replace(self._run.samples_folder / made["subfolder"] / made["filename"], target)
            self._ctx.emit("sample", run=self._run.name, step=step, index=index, file=target.name)
        self._kept = {kind: value for kind, value in kept.items() if kind is not Live}

    def _picture(self, prompt: str, index: int, name: str) -> PictureSettings:
        settings = self._settings
        # an empty latent has an eighth of what it is asked for, whatever the VAE's factor is
        side = settings.resolution // self._factor * 8
        return PictureSettings(
            ckpt_name=settings.model,
            positive=prompt,
            negative=settings.sample_negative,
            width=side,
            height=side,
            seed=settings.sample_seed + index,
            steps=settings.sample_steps,
            cfg=settings.sample_cfg,
            sampler_name=settings.sample_sampler,
            scheduler=settings.sample_scheduler,
            loras=(LoraChoice(self._lora),),
            filename_prefix=name,
        )


class _SampleContext:
    """The training's JobContext as a sample's graph sees it: pictures go to the run, progress is the training's."""

    def __init__(self, ctx: JobContext, run: Run, kept: dict[type, Any], index: int, total: int) -> None:
        self.job_id = ctx.job_id
        self.client_id = ctx.client_id
        self.attempt = ctx.attempt
        self.workspace = replace(ctx.workspace, output_dir=run.samples_folder)
        self.models = ctx.models
        self.kept = kept
        self.secrets: dict[str, str] = {}
        self._ctx = ctx
        self._place = (index, total)

    def progress(self, step: int, total: int, text: str = "", *, phase: str = "", **metrics: float) -> None:
        self._ctx.progress(*self._place, f"{text} {step}/{total}", phase="sample")

    def checkpoint(self, save: Callable[[], None] | None = None) -> None:
        """Cancels, and lets nobody in: the LoRA under training acts on the shared base just now."""
        if self.cancelled:
            raise Cancelled

    @property
    def cancelled(self) -> bool:
        return self._ctx.cancelled

    def saved(self) -> None:
        self._ctx.saved()

    def preview(self, image: Image, **info: Any) -> None:
        self._ctx.preview(image, **info)

    def emit(self, event: str, **data: Any) -> None:
        """The graph's own events are nobody's business: whoever listens to a training did not submit this prompt."""

    def submit(self, spec: JobSpec) -> str:
        return self._ctx.submit(spec)
