"""Prior preservation: pictures that the base model makes of ordinary prompts, learned along so that it forgets less.

Ruiz et al., DreamBooth (arXiv:2208.12242). They are kept as latents and never become files that one could look at.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from itertools import groupby

import torch

from engine.families.base import Components
from engine.models.manager import ModelManager
from engine.progress import ProgressSink
from engine.sampling.guiders import cfg_guider
from engine.sampling.model import schedule_of
from engine.sampling.noise import Noise
from engine.sampling.run import sample
from engine.sampling.samplers.table import SAMPLERS
from engine.sampling.schedulers import sigmas_for
from trainers.buckets import Bucket
from trainers.cache import TensorFiles
from trainers.data import Item, expand, split_caption
from trainers.seeds import derived
from trainers.settings import TrainSettings

SAMPLER, SCHEDULER = "dpmpp_2m", "karras"


def prior_prompts(settings: TrainSettings, items: Sequence[Item]) -> list[str]:
    """One prompt for each prior picture, in a fixed order."""
    sources = list(settings.prior_prompts) or sorted({without_trigger(i.caption, settings.trigger_word) for i in items})
    return [expand(sources[i % len(sources)], settings.seed, i) for i in range(settings.prior_samples)]


def without_trigger(caption: str, trigger_word: str) -> str:
    if not trigger_word:
        return caption
    rest = [part for part in split_caption(caption) if part != trigger_word]
    return re.sub(rf"(?<!\w){re.escape(trigger_word)}(?!\w)\s*", "", ", ".join(rest)).strip()


def make_prior(
    manager: ModelManager,
    components: Components,
    settings: TrainSettings,
    prompts: Sequence[str],
    bucket: Bucket,
    files: TensorFiles,
    progress: ProgressSink,
    check: Callable[[], None],
) -> list[tuple[Item, torch.Tensor]]:
    """Items with their latents as the denoiser sees them. Made once, a batch at a time, and kept in the cache."""
    made: list[tuple[Item, torch.Tensor]] = []
    for start in range(0, len(prompts), settings.batch_size):
        check()
        progress(start, len(prompts), prompts[start][:60], phase="prior")
        part = list(prompts[start : start + settings.batch_size])
        seed = derived(settings.seed, "prior", start)
        key = ("prior", components.digest, seed, part, bucket.width, bucket.height, settings.prior_steps)
        key += (settings.prior_cfg, SAMPLER, SCHEDULER, components.model.prediction)
        found = files.get(*key)
        if found is None:
            found = {"latents": _draw(manager, components, settings, part, bucket, seed, check)}
            files.put(found, *key)
        for prompt, latent in zip(part, found["latents"], strict=True):
            name = hashlib.blake2b(f"{key}{len(made)}".encode(), digest_size=16).hexdigest()
            made.append((Item(name, "", bucket.width, bucket.height, prompt, prior=True), latent.clone()))
    progress(len(prompts), len(prompts), phase="prior")
    return made


@torch.no_grad()
def _draw(
    manager: ModelManager,
    components: Components,
    settings: TrainSettings,
    prompts: Sequence[str],
    bucket: Bucket,
    seed: int,
    check: Callable[[], None],
) -> torch.Tensor:
    """(batch, c, h, w) latents in the scale of the denoiser."""
    model, clip, factor = components.model, components.clip, components.vae.factor
    with manager.lease(*clip.refs) as leased:
        encode = [model.family.encode_prompt([leased[r] for r in clip.refs], clip, text) for text in (*prompts, "")]
    *texts, negative = [(text.cross, {"pooled_output": text.pooled}) for text in encode]
    shape = (model.latent.channels, bucket.height // factor, bucket.width // factor)
    sigmas = sigmas_for(schedule_of(model), SCHEDULER, settings.prior_steps, denoise=1.0, sampler_name=SAMPLER)
    latents = []
    # prompts of more than 77 tokens are longer and can't share a batch with shorter ones
    for index, (_, group) in enumerate(groupby(texts, key=lambda text: text[0].shape[1])):
        alike = list(group)
        pooled = [about["pooled_output"] for _, about in alike if about["pooled_output"] is not None]
        about = {"pooled_output": torch.cat(pooled) if pooled else None}
        drawn = sample(
            manager,
            cfg_guider(
                model, [[torch.cat([cross for cross, _ in alike]), about]], [list(negative)], settings.prior_cfg
            ),
            sampler=SAMPLERS[SAMPLER],
            sigmas=sigmas,
            noise=Noise(seed + index),
            latent=torch.zeros((len(alike), *shape)),
            interrupt_check=check,
        )
        latents.append((drawn.latent - model.latent.shift) * model.latent.scale)
    return torch.cat(latents)
