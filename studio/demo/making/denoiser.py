"""The demo model's UNet, trained together with the text encoder as SD 1.x was: epsilon, scaled-linear betas.

Min-SNR weights (Hang et al. 2023) with an emphasis on noisy timesteps, timesteps spread evenly over a batch, and an
average of the weights at the end.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from studio.demo.making.autoencoder import SCALING_FACTOR, encode
from studio.demo.making.muon import MuonAdamW
from studio.demo.making.pictures import pool
from studio.demo.making.samples import Sample, sample
from studio.demo.making.text import WIDTH, AttributeHeads, special_ids, targets_of, tokenize

HEADS = 2  # with 4, attention alone takes half of the time on a CPU
GROUPS = 8
_EMPTY_CAPTION = 0.12  # share of pictures without a caption, for classifier-free guidance
_HEADS_WEIGHT = 0.02
_EMA = 0.998


@dataclass(frozen=True)
class Lesson:
    """Pictures as scaled latents, (count, 4, height, width), and what they are."""

    latents: Tensor
    samples: list[Sample]


@dataclass
class Progress:
    """Everything a later process needs to go on, but for the optimizer's momentum."""

    unet: UNet2DConditionModel
    text: CLIPTextModel
    heads: AttributeHeads
    average: list[Tensor] = field(default_factory=list)
    step: int = 0

    def __post_init__(self) -> None:
        """The average starts at the weights."""
        self.average = self.average or [param.detach().clone() for param in self.params]

    @property
    def params(self) -> list[nn.Parameter]:
        """What is trained and averaged."""
        return [*self.unet.parameters(), *self.text.parameters()]


def new_unet() -> UNet2DConditionModel:
    """An untrained UNet with exactly SD 1.x's block layout, so that its key maps fit; only narrower."""
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 48, 64, 64),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
        cross_attention_dim=WIDTH,
        attention_head_dim=HEADS,  # the number of heads, as SD 1.x's configuration has it
        norm_num_groups=GROUPS,
    )


def noise_schedule() -> DDPMScheduler:
    """SD 1.x's."""
    return DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )


def lesson(vae: AutoencoderKL, count: int, seed: int = 3) -> Lesson:
    """Draws and encodes `count` pictures."""
    rng = random.Random(seed)
    samples, latents = [sample(rng) for _ in range(count)], []
    for at in range(0, count, 500):
        drawn = iter(samples[at : at + 500])
        latents.append(encode(vae, pool(lambda drawn=drawn: next(drawn).draw(), len(samples[at : at + 500]))))
    return Lesson(torch.cat(latents) * SCALING_FACTOR, samples)


def make(
    vae: AutoencoderKL, text: CLIPTextModel, heads: AttributeHeads, tokenizer: CLIPTokenizer, state: Path, quick: bool
) -> UNet2DConditionModel:
    """The averaged UNet; the text encoder is trained and averaged with it. Goes on from `state` if it is there."""
    torch.manual_seed(4)
    progress = Progress(new_unet(), text, heads)
    if state.exists():
        load_progress(progress, state)
    pictures = lesson(vae, 100 if quick else 16000)
    train(progress, tokenizer, pictures, steps=10 if quick else 3000, save=partial(save_progress, path=state))
    use_average(progress)
    return progress.unet.eval()


def train(
    progress: Progress,
    tokenizer: CLIPTokenizer,
    lesson: Lesson,
    steps: int,
    save: Callable[[Progress], None],
    lr: float = 4e-3,
    batch: int = 32,
    seed: int = 4,
) -> None:
    """Trains UNet, text encoder and heads; calls `save` every 200 steps and at the end."""
    rng = random.Random(seed)
    optimizer = MuonAdamW([progress.unet, progress.text, progress.heads], lr, adam_ratio=0.5)
    schedule: Any = noise_schedule()
    snr = schedule.alphas_cumprod / (1 - schedule.alphas_cumprod)
    eos: int = special_ids(tokenizer)["eos_token_id"]
    start, total = time.time(), 0.0
    while progress.step < steps:
        index = torch.randint(0, len(lesson.latents), (batch,))
        latents, samples = lesson.latents[index], [lesson.samples[i] for i in index.tolist()]
        captions = ["" if rng.random() < _EMPTY_CAPTION else one.caption(rng) for one in samples]
        ids = tokenize(tokenizer, captions)
        hidden = progress.text(ids).last_hidden_state
        timesteps = spread_timesteps(batch)
        noise = torch.randn_like(latents)
        predicted = progress.unet(schedule.add_noise(latents, noise, timesteps), timesteps, hidden).sample
        errors = (predicted - noise).square().mean((1, 2, 3))
        weights = loss_weights(snr[timesteps])
        named = torch.tensor([bool(text) for text in captions])
        about, _ = progress.heads(hidden[named], ids[named], targets_of(samples)[named], eos)
        loss = (weights / weights.mean() * errors).mean() + _HEADS_WEIGHT * about
        optimizer.step(loss, flat_then_linear(progress.step, steps))
        progress.step += 1
        _average(progress)
        total += float(errors.detach().mean())
        if progress.step % 100 == 0:
            spent, mse, about = time.time() - start, total / 100, float(about.detach())
            print(f"unet {progress.step}/{steps} mse {mse:.4f} heads {about:.2f} {spent:.0f} s", flush=True)
            total = 0.0
        if progress.step % 200 == 0 or progress.step == steps:
            save(progress)


def loss_weights(snr: Tensor) -> Tensor:
    """Min-SNR (gamma 5) times the weights of a v-prediction loss (Salimans & Ho 2022), for errors of epsilon.

    The colours of wide areas are decided where there is much noise and little signal, and there an error of epsilon
    hardly counts: without the second factor colours are learned long after shapes.
    """
    return snr.clamp(max=5) / snr * (1 + 1 / (snr + 0.02))


def spread_timesteps(batch: int) -> Tensor:
    """One timestep in each of `batch` equal parts of 0..999: less noise in the gradient than independent ones."""
    width = 1000 / batch
    return ((torch.arange(batch) + torch.rand(())) * width + torch.rand(batch) * width).long() % 1000


def flat_then_linear(step: int, steps: int, warmup: int = 150) -> float:
    """Share of the learning rate: a linear start, flat for the first half, linearly down in the second."""
    return min(1.0, (step + 1) / warmup) * min(1.0, 2 * (1 - step / steps) + 0.01)


def save_progress(progress: Progress, path: Path) -> None:
    """Weights and their average, written whole or not at all."""
    part = path.with_suffix(".part")
    modules = {name: getattr(progress, name).state_dict() for name in ("unet", "text", "heads")}
    torch.save({**modules, "average": progress.average, "step": progress.step}, part)
    part.replace(path)


def load_progress(progress: Progress, path: Path) -> None:
    """What save_progress wrote."""
    state = torch.load(path)
    for name in ("unet", "text", "heads"):
        getattr(progress, name).load_state_dict(state[name])
    progress.average, progress.step = state["average"], state["step"]


def use_average(progress: Progress) -> None:
    """Puts the averaged weights into the modules; the last ones are lost."""
    with torch.no_grad():
        for param, average in zip(progress.params, progress.average, strict=True):
            param.copy_(average)


@torch.no_grad()
def _average(progress: Progress) -> None:
    decay = min(_EMA, (1 + progress.step) / (10 + progress.step))
    for average, param in zip(progress.average, progress.params, strict=True):
        average.lerp_(param, 1 - decay)
