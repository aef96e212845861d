"""The "train" job: from settings to a LoRA in models/loras, with everything in a run folder that a killed job goes on
from. The server imports nothing of this; it runs in the worker."""

from __future__ import annotations

import errno
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from engine.errors import DiskFull
from engine.families.base import Components
from engine.jobs.types import JobContext
from engine.workspace import replacing
from trainers.augment import variant_of
from trainers.base import load_base
from trainers.buckets import Bucket, nearest_bucket, sizes_of
from trainers.cache import Latents, TensorFiles, Texts
from trainers.data import Item, Plan, freeze, read_dataset, thaw
from trainers.export import describe_lora, export_lora
from trainers.looks import Look
from trainers.loop import Trainer
from trainers.prior import make_prior, prior_prompts
from trainers.runs import Run, run_of
from trainers.samples import Samples
from trainers.settings import TrainSettings
from trainers.state import load_state, save_state

STATE_SECONDS = 120.0  # a state is never older than this while steps are shorter
HEARTBEAT = 2.0


def run(ctx: JobContext, settings: TrainSettings) -> dict[str, Any]:
    """Train, or go on where the last state of this job's run is. Returns {"lora", "run", "steps", "loss", ...}."""
    folder = run_of(ctx.workspace, settings, ctx.job_id)
    components = load_base(ctx, settings)
    items = _pictures(ctx, settings, folder)
    with ExitStack() as stack:
        trainer = stack.enter_context(_prepared(ctx, settings, folder, components, items))
        return _Training(ctx, settings, folder, components, items, trainer, stack).run()


def _pictures(ctx: JobContext, settings: TrainSettings, folder: Run) -> list[Item]:
    """The pictures as they were when the run began: what is edited meanwhile belongs to the next run."""
    if folder.pictures.is_file():
        return thaw(folder.pictures)
    ctx.progress(0, 0, settings.dataset, phase="load")
    items = read_dataset(ctx.workspace, settings.dataset, settings.trigger_word, ctx.progress)
    folder.root.mkdir(parents=True, exist_ok=True)
    folder.update_info(job=ctx.job_id, model=settings.model, created=time.time())
    with replacing(folder.config, "w") as file:
        file.write(settings.to_toml())
    freeze(items, folder.pictures)
    return items


@contextmanager
def _prepared(
    ctx: JobContext, settings: TrainSettings, folder: Run, components: Components, items: list[Item]
) -> Iterator[Trainer]:
    """Everything a step needs: sizes, latents, captions, prior pictures, and the adapters in their last state."""
    square, *_ = sizes = sizes_of(settings)
    buckets = {item.hash: nearest_bucket(item.width, item.height, sizes) for item in items}
    latents = Latents(ctx.models, components.vae, ctx.workspace.cache / "latents", keep=settings.cache_latents)
    with _heard(ctx, components.vae.ref.title, "cache"):
        latents.prepare([(item, look) for item in items for look in _looks(settings, item, buckets)], ctx.progress)
    prior: list[Item] = []
    if settings.prior_fraction:
        files = TensorFiles(ctx.workspace.cache / "latents")
        prompts = prior_prompts(settings, items)
        for item, latent in make_prior(
            ctx.models, components, settings, prompts, square, files, ctx.progress, ctx.checkpoint
        ):
            latents.give(item, latent)
            buckets[item.hash] = square
            prior.append(item)
    texts = Texts(ctx.models, components.clip, ctx.workspace.cache / "texts") if settings.caches_text else None
    if texts:
        empty = [""] if settings.caption_dropout else []
        texts.prepare([*(item.caption for item in (*items, *prior)), *empty], ctx.progress)
    plan = Plan(settings, items, [buckets[item.hash] for item in items], prior)
    with ExitStack() as stack:
        with _heard(ctx, components.model.ref.title, "load"):
            trainer = stack.enter_context(Trainer(ctx.models, components, settings, plan, buckets, latents, texts))
        yield trainer


class _Training:
    """The run itself: steps, and between them what is due."""

    def __init__(
        self,
        ctx: JobContext,
        settings: TrainSettings,
        folder: Run,
        components: Components,
        items: list[Item],
        trainer: Trainer,
        stack: ExitStack,
    ) -> None:
        self.ctx = ctx
        self.settings = settings
        self.folder = folder
        self.components = components
        self.items = items
        self.trainer = trainer
        self.samples = Samples(ctx, settings, folder, components)
        self.step = self._resume()
        self._saved = (self.step, time.monotonic())
        folder.forget_metrics_after(self.step)
        self._metrics = stack.enter_context(folder.metrics_file.open("a", encoding="utf-8"))
        self._board = stack.enter_context(_tensorboard(folder, self.step) if settings.tensorboard else nullcontext())

    def run(self) -> dict[str, Any]:
        while True:
            self._do_what_is_due()
            if self.step >= self.settings.steps:
                return self._finish()
            with self.trainer.given_up():
                self.ctx.checkpoint(self._save)
            result = self.trainer.step(self.step)
            self.step += 1
            self._log(loss=result.loss, lr=result.lr, grad_norm=result.grad_norm)
            self.ctx.progress(
                self.step,
                self.settings.steps,
                f"loss {result.loss:.4f}",
                phase="train",
                loss=result.loss,
                lr=result.lr,
            )

    def _resume(self) -> int:
        state = load_state(self.folder.state)
        if state is None:
            return 0
        self.trainer.load(state)
        return state.step

    def _do_what_is_due(self) -> None:
        """Each only if it is not there yet, so that a resumed run makes up for what a kill left out."""
        settings, step = self.settings, self.step
        if step and step > self._saved[0]:
            by_step = step == settings.steps or (settings.state_every and step % settings.state_every == 0)
            if by_step or time.monotonic() - self._saved[1] >= STATE_SECONDS:
                self._save()
        if settings.save_every and step and step % settings.save_every == 0 and step < settings.steps:
            path = self.folder.checkpoint(step)
            if not path.exists():
                self.ctx.progress(step, settings.steps, path.name, phase="save")
                self._export(path)
        if self.samples.due(step):
            with self.trainer.given_up():
                self.samples.draw(step, self.trainer, lambda: self.ctx.checkpoint(self._save))

    def _save(self) -> None:
        if self._saved[0] != self.step or self.step == 0:
            save_state(self.folder.state, self.trainer.state(self.step))
        self._saved = (self.step, time.monotonic())
        self.ctx.saved()

    def _log(self, **values: float) -> None:
        try:
            self._metrics.write(json.dumps({"step": self.step, **values, "time": time.time()}) + "\n")
            self._metrics.flush()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise DiskFull(path=self.folder.metrics_file, need=str(error)) from error
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(name, value, self.step)

    def _export(self, path: Path) -> None:
        started = float(self.folder.info().get("created", time.time()))
        words = describe_lora(
            self.components, self.settings, self.items, title=path.stem, step=self.step, started=started
        )
        export_lora(path, self.components, self.trainer.parts, self.settings, words)

    def _finish(self) -> dict[str, Any]:
        path = self.folder.lora(self.ctx.workspace)
        self.ctx.progress(self.step, self.settings.steps, path.name, phase="save")
        self._export(path)
        self.folder.update_info(lora=path.name, steps=self.step)
        return {
            "lora": path.name,
            "run": self.folder.name,
            "model": self.settings.model,
            "trigger_word": self.settings.trigger_word,
            "steps": self.step,
            "loss": self.folder.metrics()[-1]["loss"],
        }


def _looks(settings: TrainSettings, item: Item, buckets: Mapping[str, Bucket]) -> list[Look]:
    """Every way in which a run may show a picture."""
    flips = (False, True) if settings.flip else (False,)
    numbers = range(1, settings.augment_variants + 1) if settings.augments else (0,)
    return [
        Look(buckets[item.hash], flip, number, variant_of(settings, item.hash, number))
        for number in numbers
        for flip in flips
    ]


@contextmanager
def _heard(ctx: JobContext, text: str, phase: str) -> Iterator[None]:
    """Seconds go by under `phase` while something that tells nothing itself (reading gigabytes) goes on."""
    done = threading.Event()

    def tick() -> None:
        seconds = 0.0
        while not done.wait(HEARTBEAT):
            seconds += HEARTBEAT
            try:
                ctx.progress(0, 0, f"{text} ({seconds:.0f} s)", phase=phase)
            except BaseException:  # a cancel is for the thread that works
                return

    ctx.progress(0, 0, text, phase=phase)
    thread = threading.Thread(target=tick, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def _tensorboard(folder: Run, step: int) -> Iterator[Any]:
    from torch.utils.tensorboard.writer import SummaryWriter

    writer = SummaryWriter(str(folder.tensorboard), purge_step=step + 1 if step else None)
    try:
        yield writer
    finally:
        writer.close()
