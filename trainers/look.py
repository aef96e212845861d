"""The "look" job: what a training would see, made by the trainer's own code without training.

The first batches of the run with these settings: each picture as it would go into the VAE, its mask, its caption after
dropout and shuffling, and how many tokens that has for each text encoder. Weights are not read.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from engine.dataset.tokens import TOKENIZERS
from engine.errors import PictureError
from engine.jobs.types import JobContext
from trainers.augment import variant_of
from trainers.base import load_base
from trainers.buckets import Bucket, nearest_bucket, sizes_of
from trainers.data import Draw, Plan, read_dataset
from trainers.looks import Look, look_at, look_at_mask
from trainers.settings import LookSettings, TrainSettings

FOLDER = "look"  # under the workspace's temporary pictures
KEPT = 3600.0  # seconds for which the pictures of a look stay
CHUNK = 75  # tokens that CLIP takes at a time


def run(ctx: JobContext, settings: LookSettings) -> dict[str, Any]:
    """Returns {"samples": [...], "sizes": {bucket: pictures}}; pictures lie under the workspace's temp folder."""
    train = settings.train.model_copy(update={"dataset": settings.dataset})
    items = read_dataset(ctx.workspace, train.dataset, train.trigger_word, ctx.progress)
    sizes = sizes_of(train)
    buckets = {item.hash: nearest_bucket(item.width, item.height, sizes) for item in items}
    plan = Plan(train, items, [buckets[item.hash] for item in items], [])
    encoders = _encoders(ctx, train)
    folder = _folder(ctx)
    samples: list[dict[str, Any]] = []
    step = settings.start
    while len(samples) < settings.count:
        for batch in plan.step(step):
            for draw in batch:
                if len(samples) < settings.count:
                    ctx.progress(len(samples), settings.count, Path(draw.item.path).name, phase="look")
                    ctx.checkpoint()
                    sample = _sample(train, draw, buckets[draw.item.hash], folder, len(samples))
                    words = {name: _count(tokens, draw.caption) for name, tokens in encoders.items()}
                    samples.append({"step": step, "tokens": words, **sample})
        step += 1
    counts: dict[str, int] = {}
    for item in items:
        bucket = buckets[item.hash]
        counts[f"{bucket.width} x {bucket.height}"] = counts.get(f"{bucket.width} x {bucket.height}", 0) + 1
    return {"samples": samples, "sizes": counts, "next": step}


def _sample(train: TrainSettings, draw: Draw, bucket: Bucket, folder: Path, number: int) -> dict[str, Any]:
    look = Look(bucket, draw.flip, draw.variant, variant_of(train, draw.item.hash, draw.variant))
    shown: dict[str, Any] = {
        "name": Path(draw.item.path).name,
        "caption": draw.caption,
        "whole_caption": draw.item.caption,
        "width": bucket.width,
        "height": bucket.height,
        "flip": draw.flip,
        "crop": draw.item.crop is not None,
        "variant": vars(look.variant) if look.variant else None,
        "file": f"{number}.webp",
        "mask": "",
        "subfolder": f"{FOLDER}/{folder.name}",
    }
    try:
        look_at(draw.item, look).save(folder / shown["file"], quality=90)
        mask = look_at_mask(draw.item, look) if train.masked_loss else None
    except PictureError as error:
        return {**shown, "file": "", "error": error.to_json()}
    if mask is not None:
        shown["mask"] = f"{number}-mask.webp"
        mask.save(folder / shown["mask"], lossless=True)
    return shown


def _encoders(ctx: JobContext, train: TrainSettings) -> dict[str, Any]:
    """Tokenizers by the name of their encoder: the base model's own, or CLIP's where none is chosen."""
    if not train.model:
        return {"l": TOKENIZERS["clip"]()}
    clip = load_base(ctx, train).clip
    return dict(zip(clip.names, clip.tokenizers, strict=True))


def _count(tokenizer: Any, caption: str) -> int:
    return len(tokenizer.encode(caption))


def _folder(ctx: JobContext) -> Path:
    """A new folder for this look; those of an hour ago go."""
    root = ctx.workspace.temp / FOLDER
    root.mkdir(parents=True, exist_ok=True)
    for old in root.iterdir():
        if time.time() - old.stat().st_mtime > KEPT:
            shutil.rmtree(old, ignore_errors=True)
    folder = root / ctx.job_id
    folder.mkdir(exist_ok=True)
    return folder
