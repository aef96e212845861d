"""What a training would make of a dataset: the sizes its pictures are cut to, and samples by the trainer's own code.

The settings are those of the Train tab as they stand there, with what somebody tries out over them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from engine.dataset.library import Dataset
from engine.dataset.records import Picture
from engine.dataset.view import View
from engine.errors import InputError
from engine.settings import checked
from studio.app import App
from studio.live.dataset_show import HASH_LETTERS
from studio.live.forms import form_of
from tabs.train import told
from trainers.buckets import Bucket, kept_box, nearest_bucket, sizes_of
from trainers.settings import TrainSettings

TRIED = (
    *("resolution", "buckets", "bucket_step", "flip", "augment_rotation", "augment_scale", "augment_colour"),
    *("augment_variants", "masked_loss", "caption_dropout", "shuffle_caption", "keep_tokens"),
)
MOST_CUT = 48  # pictures shown with what is cut of them


def training(app: App, dataset: Dataset, view: View, tried: Mapping[str, Any]) -> dict[str, Any]:
    """The form of what can be tried, and the buckets with the pictures that lose most."""
    now, settings = settings_with(app, {}).model_dump(mode="json"), settings_with(app, tried)
    fields = [field for field in form_of(TrainSettings) if field["name"] in TRIED]
    fields = [{**field, "basic": True, "default": now[field["name"]]} for field in fields]
    return {"fields": fields, "model": settings.model, **_buckets(view, settings)}


def look(app: App, dataset: Dataset, body: Mapping[str, Any]) -> dict[str, Any]:
    """Queue a look at the first pictures of such a training. Returns its job."""
    settings = settings_with(app, dict(body.get("changes") or {}))
    told = {"dataset": dataset.name, "train": settings.model_dump(mode="json"), "count": body.get("count", 12)}
    job = app.submit("look", {**told, "start": body.get("start", 0)}, title=dataset.name)
    return {"job": job.id}


def resolution(app: App) -> int:
    """Side of the pictures of a training with the Train tab's settings; the usual one while they can't be used."""
    try:
        return settings_with(app, {}).resolution
    except InputError:
        return TrainSettings().resolution


def settings_with(app: App, changes: Mapping[str, Any]) -> TrainSettings:
    """Raises UnknownSetting, InvalidSetting."""
    return checked(TrainSettings, {**told(app), **changes}, "Train")


def _buckets(view: View, settings: TrainSettings) -> dict[str, Any]:
    sizes, crops = sizes_of(settings), view.store.marks("crop")
    members: dict[Bucket, list[tuple[Picture, float]]] = defaultdict(list)
    rows: list[tuple[float, Picture, Bucket, list[float]]] = []
    for picture in view.pictures():
        left, top, right, bottom = crops.get(picture.id) or (0, 0, picture.width, picture.height)
        width, height = right - left, bottom - top
        bucket = nearest_bucket(width, height, sizes)
        box = kept_box(width, height, bucket)
        lost = 1.0 - (box[2] - box[0]) * (box[3] - box[1])
        members[bucket].append((picture, lost))
        shown = [
            (left + box[0] * width) / picture.width,
            (top + box[1] * height) / picture.height,
            (left + box[2] * width) / picture.width,
            (top + box[3] * height) / picture.height,
        ]
        rows.append((lost, picture, bucket, [round(value, 4) for value in shown]))
    rows.sort(key=lambda row: -row[0])
    return {
        "buckets": [
            {
                "width": bucket.width,
                "height": bucket.height,
                "n": len(found),
                "lost": round(sum(lost for _, lost in found) / len(found), 4),
                "enlarged": sum(min(p.width, p.height) < min(bucket.width, bucket.height) for p, _ in found),
            }
            for bucket, found in sorted(members.items(), key=lambda item: -len(item[1]))
        ],
        "cut": [
            {
                "id": picture.id,
                "hash": picture.hash[:HASH_LETTERS],
                "name": picture.name,
                "ratio": round(picture.width / max(1, picture.height), 4),
                "bucket": [bucket.width, bucket.height],
                "lost": round(lost, 4),
                "box": box,
            }
            for lost, picture, bucket, box in rows[:MOST_CUT]
            if lost > 0.005
        ],
    }
