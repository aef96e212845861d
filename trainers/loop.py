"""The training step: adapters beside a leased base, one optimiser step at a time, exactly repeatable.

It knows no job, no file and no picture format; the job around it decides when to save, to sample and to give way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from engine.errors import JobError
from engine.families.base import TEXT_PARTS, Components, Prediction, TextBatch
from engine.models.manager import Lease, ModelManager
from engine.models.threads import threads_for
from trainers import objective
from trainers.adapters import TrainedPart, checkpoint_gradients, inject
from trainers.augment import variant_of
from trainers.buckets import Bucket, offset
from trainers.cache import Latents, Masks, Texts
from trainers.data import Draw, Plan
from trainers.looks import Look
from trainers.optimizers import make_optimizer
from trainers.precision import accelerator, resolve
from trainers.schedule import lr_factor
from trainers.settings import TrainSettings
from trainers.state import State


class LossNotFinite(JobError):
    en = "The loss is {value} at step {step}: training has blown up. Lower the learning rate or the rank's alpha."
    zh = "第 {step} 步的损失为 {value}：训练已发散。请降低学习率或 alpha。"


@dataclass(frozen=True)
class StepResult:
    loss: float
    lr: float
    grad_norm: float


class Trainer:
    """A run's adapters, optimiser and lease. Use it as a context; the lease lasts as long."""

    def __init__(
        self,
        manager: ModelManager,
        components: Components,
        settings: TrainSettings,
        plan: Plan,
        buckets: Mapping[str, Bucket],
        latents: Latents,
        texts: Texts | None,
    ) -> None:
        self.settings = settings
        self.components = components
        self.parts: list[TrainedPart] = []
        self._manager = manager
        self._plan = plan
        self._buckets = buckets  # by the picture's hash
        self._latents = latents
        self._masks = Masks(components.vae.factor, settings.unmasked_weight)
        self._texts = texts  # None: captions are encoded at every step
        self._prediction: Prediction = (
            components.model.prediction if settings.prediction == "auto" else settings.prediction
        )
        self._alphas = components.model.family.alphas_cumprod(components.model).double()
        self._refs = [components.model.ref, *(() if texts else components.clip.refs)]
        self._run = ExitStack()
        self._held = ExitStack()
        self._leased: Lease | None = None

    def __enter__(self) -> Trainer:
        with ExitStack() as stack:
            settings, device = self.settings, self._manager.device.torch
            stack.callback(self._held.close)
            self._take()
            base = next(self._lease[self.components.model.ref].parameters()).dtype
            precision = resolve(settings.mixed_precision, base, device)
            self._accelerator = stack.enter_context(
                accelerator(precision, settings.gradient_accumulation_steps, device)
            )
            self._inject()
            self._optimizer = self._accelerator.prepare_optimizer(
                make_optimizer(settings, self._groups(), device), device_placement=False
            )
            weights = sum(p.nbytes for part in self.parts for p in part.parameters())
            stack.enter_context(self._manager.lease(training=4 * weights))  # weights, gradients, two moments
            self._run = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._run.close()

    def step(self, step: int) -> StepResult:
        """One optimiser step (0-based). Raises LossNotFinite."""
        with threads_for(self._lease[self.components.model.ref]):
            return self._step(step)

    def _step(self, step: int) -> StepResult:
        settings, batches = self.settings, self._plan.step(step)
        lr = self._set_lr(step)
        count = sum(len(batch) for batch in batches)
        timesteps = objective.draw_timesteps(
            settings.seed, step, count, len(self._alphas), stratified=settings.stratified_timesteps
        )
        total, norm = 0.0, 0.0
        for batch in batches:
            with self._accelerator.accumulate():
                for group in _by_size([(draw, self._bucket(draw)) for draw in batch]):
                    loss = self._loss(step, group, timesteps)
                    total += loss.item() / count
                    self._accelerator.backward(loss * len(batches) / count)
                if self._accelerator.sync_gradients:
                    norm = self._clip()
                self._optimizer.step()
                self._optimizer.zero_grad()
        if not math.isfinite(total):
            raise LossNotFinite(value=total, step=step + 1)
        return StepResult(total, lr, norm)

    def state(self, step: int) -> State:
        """What `load` goes on from, after `step` finished steps."""
        adapters = {name: t for part in self.parts for name, t in part.tensors().items()}
        scaler = self._accelerator.scaler
        return State(step, adapters, self._optimizer.state_dict(), scaler.state_dict() if scaler else None)

    def load(self, state: State) -> None:
        for part in self.parts:
            part.load(state.adapters)
        self._optimizer.load_state_dict(state.optimizer)
        if self._accelerator.scaler and state.scaler:
            self._accelerator.scaler.load_state_dict(state.scaler)

    @contextmanager
    def given_up(self) -> Iterator[None]:
        """The base is nobody's for the length of the block: other work may have it moved or dropped."""
        self._held.close()
        self._leased = None
        yield
        self._take()
        for part in self.parts:
            part.rebind(self._lease[part.ref])

    @property
    def _lease(self) -> Lease:
        if self._leased is None:
            raise RuntimeError("the trainer has given its lease up")
        return self._leased

    def _take(self) -> None:
        self._leased = self._held.enter_context(self._manager.lease(*self._refs, working=self._working_bytes()))

    def _inject(self) -> None:
        settings, model, clip = self.settings, self.components.model, self.components.clip
        wanted = []
        if settings.linear or settings.conv:
            wanted.append(("denoiser", model.ref))
        if settings.train_text_encoder:
            wanted += zip(TEXT_PARTS, clip.refs, strict=False)
        for part, ref in wanted:
            twin = self._lease.twin(ref)
            reach = (
                {"linear": True, "conv": False}
                if part in TEXT_PARTS
                else {"linear": settings.linear, "conv": settings.conv}
            )
            targets = model.family.lora_targets(twin, part, **reach)
            trained = inject(
                part, ref, twin, targets, rank=settings.rank, alpha=settings.scale_alpha, seed=settings.seed
            )
            if settings.gradient_checkpointing:
                checkpoint_gradients(twin)
            self.parts.append(trained)

    def _module(self, part: str, index: int = 0) -> torch.nn.Module:
        """The twin where the part trains, else the shared module."""
        ref = self.components.model.ref if part == "denoiser" else self.components.clip.refs[index]
        return next((p.twin for p in self.parts if p.ref == ref), None) or self._lease[ref]

    def _loss(self, step: int, group: list[tuple[Draw, Bucket]], timesteps: torch.Tensor) -> torch.Tensor:
        """Sum of the weighted losses of pictures of one size."""
        settings, device = self.settings, self._manager.device.torch
        looks = [self._look(draw, bucket) for draw, bucket in group]
        x0 = torch.stack([self._latents.get(draw.item, look) for (draw, _), look in zip(group, looks, strict=True)])
        noise = torch.stack(
            [
                objective.draw_noise(settings.seed, step, draw.slot, x.shape, settings.noise_offset)
                for (draw, _), x in zip(group, x0, strict=True)
            ]
        )
        t = timesteps[[draw.slot for draw, _ in group]]
        alphas = self._alphas[t].float()
        noisy, wanted = objective.add_noise(x0, noise, alphas), objective.target(self._prediction, x0, noise, alphas)
        weight = objective.loss_weight(self._prediction, alphas, settings.min_snr_gamma, settings.v_pred_like_loss)
        weight = weight * torch.tensor([settings.prior_weight if draw.item.prior else 1.0 for draw, _ in group])
        with self._accelerator.autocast():
            text = self._told(self._encode([draw.caption for draw, _ in group]), group, noisy.to(device))
            said = self.components.model.family.predict(
                self._module("denoiser"), noisy.to(device), t.to(device, torch.float32), text
            )
        squared = (said.float() - wanted.to(device)).square()
        masks = [self._masks.get(draw.item, look) for (draw, _), look in zip(group, looks, strict=True)]
        if settings.masked_loss and any(mask is not None for mask in masks):
            everywhere = torch.ones(1, *x0.shape[-2:])
            squared = squared * torch.stack([everywhere if m is None else m for m in masks]).to(device)
        return (squared.mean(dim=(1, 2, 3)) * weight.to(device)).sum()

    def _told(self, text: TextBatch, group: list[tuple[Draw, Bucket]], latents: torch.Tensor) -> TextBatch:
        """What the model is told beside the caption: how large each picture was, and what its bucket cut off."""
        model, rows = self.components.model, []
        for i, (draw, bucket) in enumerate(group):
            pooled = None if text.pooled is None else text.pooled[i : i + 1]
            rows.append(model.family.extra_conditions(model, pooled, sizes_of(draw, bucket), latents[i : i + 1]))
        extra = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        return replace(text, extra={**text.extra, **extra})

    def _encode(self, captions: list[str]) -> TextBatch:
        if self._texts:
            return _on(self._texts.get(captions), self._manager.device.torch)
        clip = self.components.clip
        modules = [self._module("text_encoder", i) for i in range(len(clip.refs))]
        with torch.set_grad_enabled(self.settings.train_text_encoder):
            return clip.family.encode_captions(modules, clip, captions)

    def _clip(self) -> float:
        parameters = [p for part in self.parts for p in part.parameters()]
        norm = self._accelerator.clip_grad_norm_(parameters, self.settings.max_grad_norm or math.inf)
        return float(norm) if norm is not None else 0.0

    def _groups(self) -> list[dict[str, Any]]:
        return [{"params": part.parameters(), "lr": self._base_lr(part)} for part in self.parts]

    def _base_lr(self, part: TrainedPart) -> float:
        own = self.settings.text_encoder_lr if part.part in TEXT_PARTS else 0.0
        return own or self.settings.learning_rate

    def _set_lr(self, step: int) -> float:
        factor = lr_factor(step, self.settings.steps, self.settings.lr_scheduler, self.settings.warmup)
        for group, part in zip(self._optimizer.param_groups, self.parts, strict=True):
            group["lr"] = self._base_lr(part) * factor
        return self.settings.learning_rate * factor

    def _look(self, draw: Draw, bucket: Bucket) -> Look:
        return Look(bucket, draw.flip, draw.variant, variant_of(self.settings, draw.item.hash, draw.variant))

    def _bucket(self, draw: Draw) -> Bucket:
        return self._buckets[draw.item.hash]

    def _working_bytes(self) -> int:
        """Activations of one batch, before any was measured: about 4 KiB per latent cell and first-block channel in 32
        bits (512 x 512 on SD 1.x: 5 GB), half of it in 16, three tenths with checkpointing. The host pages instead."""
        if self._manager.device.is_host:
            return 0
        settings, model = self.settings, self.components.model
        cells = settings.batch_size * (settings.resolution // self.components.vae.factor) ** 2
        channels = model.config.get("block_out_channels", [320])[0]
        share = (1.0 if settings.mixed_precision == "no" else 0.5) * (0.3 if settings.gradient_checkpointing else 1.0)
        return int(4096 * cells * channels * share)


def sizes_of(draw: Draw, bucket: Bucket) -> dict[str, int]:
    """A picture's own size and the corner of its crop, as the words of a conditioning entry."""
    left, top = offset(draw.item.width, draw.item.height, bucket)
    own = {"width": draw.item.width, "height": draw.item.height, "crop_w": left, "crop_h": top}
    return {**own, "target_width": bucket.width, "target_height": bucket.height}


def _by_size(batch: list[tuple[Draw, Bucket]]) -> list[list[tuple[Draw, Bucket]]]:
    """Pictures of one size in one forward pass: prior pictures may have another size than the rest of the batch."""
    groups: dict[Bucket, list[tuple[Draw, Bucket]]] = {}
    for draw, bucket in batch:
        groups.setdefault(bucket, []).append((draw, bucket))
    return list(groups.values())


def _on(text: TextBatch, device: torch.device) -> TextBatch:
    pooled = text.pooled.to(device) if text.pooled is not None else None
    return TextBatch(text.cross.to(device), pooled, {name: t.to(device) for name, t in text.extra.items()})
