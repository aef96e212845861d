"""What a run shows the model: pictures with captions, frozen at its start, and which of them come in which batch.

A batch is a function of the seed and its index, so nothing about the order has to be saved.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

from engine.dataset.decoding import PICTURE_SUFFIXES, read_facts
from engine.dataset.export import SIDECAR_SUFFIXES, caption_of, read_caption, rules_of
from engine.dataset.library import Library
from engine.dataset.masks import mask_path
from engine.dataset.pictures import content_hash, scan
from engine.dataset.view import View
from engine.errors import CHECK_PATH, InputError, NotFound
from engine.progress import ProgressSink, silent
from engine.workspace import Workspace, replacing
from trainers.buckets import Bucket
from trainers.seeds import dice
from trainers.settings import TrainSettings


class NoPictures(InputError):
    en = "There are no pictures in '{dataset}'. Add some (PNG, JPEG, WebP) before training."
    zh = "“{dataset}”中没有图片。请先添加图片（PNG、JPEG、WebP）再训练。"


class SharedCaption(InputError):
    en = "{first} and {second} would share one caption file. Rename one of the pictures."
    zh = "{first} 与 {second} 会共用同一个描述文件。请重命名其中一张图片。"


@dataclass(frozen=True)
class Item:
    """One picture of a run. Prior pictures have no file: their latents lie in the cache under `hash`.

    `width` and `height` are those of the crop, where it has one; then `whole` is the picture's own size. `mask` is the
    file of its mask.
    """

    hash: str
    path: str
    width: int
    height: int
    caption: str
    prior: bool = False
    crop: tuple[int, int, int, int] | None = None
    whole: tuple[int, int] | None = None
    mask: str = ""


@dataclass(frozen=True)
class Draw:
    """One place of a batch: a picture as it is shown this time. `slot` is its place among those of the whole step;
    `variant` the number of its variant (augment.py), 0 for the picture as it is."""

    item: Item
    slot: int
    caption: str
    flip: bool
    variant: int = 0


def read_dataset(
    workspace: Workspace, dataset: str, trigger_word: str = "", progress: ProgressSink = silent
) -> list[Item]:
    """A dataset by name, as the Dataset tab shows it, or an absolute folder with sidecars. Sorted by content.

    The sidecar also speaks for a picture of a named dataset of which nothing is known yet: a folder just copied there.
    """
    if not dataset.strip():
        raise NotFound(
            what="dataset", what_zh="数据集", name="", remedy="Choose a dataset.", remedy_zh="请选择数据集。"
        )
    absolute = Path(dataset).expanduser().is_absolute()
    found = _of_folder(Path(dataset).expanduser(), progress) if absolute else _of_library(workspace, dataset, progress)
    if not found:
        raise NoPictures(dataset=dataset)
    items = {item.hash: replace(item, caption=with_trigger(item.caption, trigger_word)) for item in found}
    return [items[key] for key in sorted(items)]


def freeze(items: Sequence[Item], path: Path) -> None:
    with replacing(path, "w") as file:
        json.dump([asdict(item) for item in items], file, ensure_ascii=False, indent=0)


def thaw(path: Path) -> list[Item]:
    rows = json.loads(path.read_text(encoding="utf-8"))
    pairs = ("crop", "whole")
    return [Item(**{**row, **{name: tuple(row[name]) for name in pairs if row.get(name)}}) for row in rows]


def with_trigger(caption: str, trigger_word: str) -> str:
    """The caption with the trigger word as its first part; one that stands elsewhere among the parts moves there."""
    if not trigger_word:
        return caption
    rest = [part for part in split_caption(caption) if part != trigger_word]
    if any(re.search(rf"(?<!\w){re.escape(trigger_word)}(?!\w)", part) for part in rest[:1]):
        return caption
    return ", ".join([trigger_word, *rest])


def split_caption(caption: str) -> list[str]:
    return [part for part in (p.strip() for p in caption.split(",")) if part]


def shown_caption(item: Item, settings: TrainSettings, step: int, slot: int) -> str:
    """The caption as this step shows it: shuffled, dropped, or as it is. Prior pictures keep theirs."""
    if item.prior:
        return item.caption
    if settings.caption_dropout and dice(settings.seed, "drop", step, slot).random() < settings.caption_dropout:
        return ""
    if not settings.shuffle_caption:
        return item.caption
    parts = split_caption(item.caption)
    first, rest = parts[: settings.keep_tokens], parts[settings.keep_tokens :]
    dice(settings.seed, "shuffle", step, slot).shuffle(rest)
    return ", ".join(first + rest)


def expand(prompt: str, seed: int, index: int) -> str:
    """`{red|blue} star` with one of the alternatives; innermost braces first."""
    rolls = dice(seed, "expand", index)
    while (found := re.search(r"\{([^{}]*)\}", prompt)) is not None:
        prompt = prompt[: found.start()] + rolls.choice(found[1].split("|")) + prompt[found.end() :]
    return prompt


class Plan:
    """Batches without end. Each epoch shows every picture `repeats` times, bucket by bucket, in an order of its own;
    a last batch that is not full takes more of its bucket. Prior pictures take their part of every batch."""

    def __init__(
        self, settings: TrainSettings, items: Sequence[Item], buckets: Sequence[Bucket], prior: Sequence[Item]
    ):
        self.settings = settings
        self.items = list(items)
        self.prior = list(prior)
        self._members: dict[Bucket, list[int]] = {}
        for index, bucket in enumerate(buckets):
            self._members.setdefault(bucket, []).append(index)
        # the part that prior pictures leave, at least one, so that an epoch's length is known beforehand
        share = 1.0 - (settings.prior_fraction if self.prior else 0.0)
        self._own = max(1, math.floor(settings.batch_size * share))
        self.batches_per_epoch = sum(
            math.ceil(len(members) * settings.repeats / self._own) for members in self._members.values()
        )
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def step(self, step: int) -> list[list[Draw]]:
        """The batches of one optimiser step."""
        per_step = self.settings.gradient_accumulation_steps
        batches, slot = [], 0
        for index in range(step * per_step, (step + 1) * per_step):
            items = self._items(index)
            batches.append([self._draw(item, step, slot + i) for i, item in enumerate(items)])
            slot += len(items)
        return batches

    def _items(self, index: int) -> list[Item]:
        epoch, place = divmod(index, self.batches_per_epoch)
        own = [self.items[i] for i in self._epoch(epoch)[place]]
        if not self.prior:
            return own
        before, after = (
            math.floor(n * self.settings.batch_size * self.settings.prior_fraction) for n in (index, index + 1)
        )
        wanted = min(self.settings.batch_size - 1, after - before) if self.settings.batch_size > 1 else after - before
        rolls = dice(self.settings.seed, "prior", index)
        drawn = [rolls.choice(self.prior) for _ in range(wanted)]
        return (own + drawn)[-self.settings.batch_size :] if self.settings.batch_size > 1 else (drawn or own)

    def _draw(self, item: Item, step: int, slot: int) -> Draw:
        flip = self.settings.flip and not item.prior and dice(self.settings.seed, "flip", step, slot).random() < 0.5
        count = 0 if item.prior or not self.settings.augments else self.settings.augment_variants
        variant = dice(self.settings.seed, "augment", step, slot).randint(1, count) if count else 0
        return Draw(item, slot, shown_caption(item, self.settings, step, slot), flip, variant)

    def _shuffled(self, epoch: int) -> list[list[int]]:
        batches: list[list[int]] = []
        for bucket, members in sorted(self._members.items()):
            rolls = dice(self.settings.seed, "epoch", epoch, bucket)
            wanted = math.ceil(len(members) * self.settings.repeats / self._own) * self._own
            order: list[int] = []
            while len(order) < wanted:
                order += rolls.sample(members, len(members))
            batches += [order[i : i + self._own] for i in range(0, wanted, self._own)]
        dice(self.settings.seed, "epoch", epoch).shuffle(batches)
        return batches


def _of_library(workspace: Workspace, name: str, progress: ProgressSink) -> list[Item]:
    with Library(workspace).open(name) as dataset:
        scan(dataset, progress)
        view, rules = View(dataset.store), rules_of(dataset)
        crops, masks = dataset.store.marks("crop"), dataset.store.marks("mask")
        items = []
        for picture in view.pictures():
            if not picture.path:
                continue
            path = dataset.path(picture.path)
            known = view.tags(picture.id) or view.captions()[view.places([picture.id])[0]]
            caption = caption_of(view, rules, picture) if known else _beside(path)
            item = Item(picture.hash, str(path), picture.width, picture.height, caption)
            if picture.id in crops:
                left, top, right, bottom = crops[picture.id]
                size = {"width": right - left, "height": bottom - top, "whole": (item.width, item.height)}
                item = replace(item, crop=(left, top, right, bottom), **size)
            if picture.id in masks:
                item = replace(item, mask=str(mask_path(dataset, masks[picture.id])))
            items.append(item)
        return items


def _of_folder(folder: Path, progress: ProgressSink) -> list[Item]:
    if not folder.is_dir():
        raise NotFound(what="folder", what_zh="文件夹", name=str(folder), **CHECK_PATH)
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES and not p.name.startswith("."))
    owners: dict[Path, Path] = {}
    items = []
    for index, path in enumerate(paths):
        progress(index, len(paths), path.name, phase="load")
        data = path.read_bytes()
        facts = read_facts(data, path.name)
        sidecar = next((path.with_suffix(s) for s in SIDECAR_SUFFIXES if path.with_suffix(s).is_file()), None)
        if sidecar and owners.setdefault(sidecar, path) != path:
            raise SharedCaption(first=owners[sidecar].name, second=path.name)
        items.append(Item(content_hash(data), str(path), facts.width, facts.height, _beside(path)))
    return items


def _beside(path: Path) -> str:
    """The caption beside a picture, on one line; empty where there is none."""
    sidecar = next((path.with_suffix(s) for s in SIDECAR_SUFFIXES if path.with_suffix(s).is_file()), None)
    return " ".join(read_caption(sidecar)[0].split()) if sidecar else ""
