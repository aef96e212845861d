"""A dataset as the page shows it: its pictures under a filter, the tags of one of them, its sources. JSON out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from engine.dataset.arrays import TAGGER
from engine.dataset.captions import pretty
from engine.dataset.export import caption_of, rules_of
from engine.dataset.library import Dataset
from engine.dataset.query import matching
from engine.dataset.records import RATING, CaptionVersion, Picture, Source
from engine.dataset.regions import regions_of
from engine.dataset.review import queue
from engine.dataset.tokens import TOKENIZERS, count_tokens
from engine.dataset.view import Annotation, View

MOST_TAGS = 400
MOST_PROBLEMS = 100
FIRST_SCREEN = 200  # pictures whose rows come with the answer; the rest is asked for when it comes into view
HASH_LETTERS = 12  # of a picture's hash, in addresses: a changed picture gets another one
FLOOR = 0.1  # score below which a tag that nobody decided on is not shown


def shown(dataset: Dataset, view: View, words: str, order: str) -> dict[str, Any]:
    """The pictures that a filter means, by number and the first as short rows, with their tags. Raises BadFilter."""
    pictures, mask = view.pictures(), matching(view, words)
    found = [picture for picture, kept in zip(pictures, mask, strict=True) if kept]
    if order == "review":
        place = {picture: i for i, picture in enumerate(queue(view))}
        found.sort(key=lambda picture: place[picture.id])
    problems = dataset.store.problems()
    events, counts = dataset.store.events(200), view.counts(mask)
    everywhere = {c.name: c.pictures for c in (counts if len(found) == len(pictures) else view.counts())}
    return {
        "total": len(pictures),
        "ids": runs([picture.id for picture in found]),
        "pictures": [_row(picture) for picture in found[:FIRST_SCREEN]],
        "tags": [
            {
                "name": c.name,
                "shown": pretty(c.name),
                "category": c.category,
                "n": c.pictures,
                "all": everywhere[c.name],
                "filter": filter_of(c.name),
            }
            for c in counts[:MOST_TAGS]
            if c.category != RATING
        ],
        "rules": rules_of(dataset).model_dump(mode="json"),
        "merge": dataset.store.meta("merge", {"how": "union"}),
        "sources": [source_json(source) for source in view.sources() if source.tool.startswith(TAGGER)],
        "problems": [{"path": row.path, **(row.problem or {})} for row in problems[:MOST_PROBLEMS]],
        "refused": len(problems),
        "undo": next((e.title for e in events if e.state == "done"), ""),
        "redo": next((e.title for e in reversed(events) if e.state == "undone"), ""),
    }


def runs(ids: Sequence[int]) -> list[int]:
    """Numbers as first, count, first, count ...: those of a whole set are one run, however many they are."""
    numbers = np.asarray(ids, np.int64)
    if not len(numbers):
        return []
    starts = np.concatenate([[0], np.flatnonzero(np.diff(numbers) != 1) + 1])
    counts = np.diff(np.append(starts, len(numbers)))
    return np.stack([numbers[starts], counts], axis=1).ravel().tolist()


def cells(dataset: Dataset, view: View, ids: Sequence[int]) -> list[list[Any]]:
    """What the page shows of these pictures: id, hash, name, caption as the trainer reads it, what is drawn on it."""
    rules, store = rules_of(dataset), dataset.store
    pictures = view.pictures()
    drawn = {kind: store.marked(kind) for kind in ("mask", "crop")}
    return [
        [*_row(p), caption_of(view, rules, p)[:160], [kind for kind, found in drawn.items() if p.id in found]]
        for p in (pictures[place] for place in view.places(ids))
    ]


def _row(picture: Picture) -> list[Any]:
    return [picture.id, picture.hash[:HASH_LETTERS], picture.name]


def about(dataset: Dataset, view: View, picture_id: int) -> dict[str, Any]:
    """One picture with every tag that some source read or the user decided, and all its caption versions."""
    picture, store = dataset.store.picture(picture_id), dataset.store
    versions = store.caption_versions(picture_id)
    caption = caption_of(view, rules_of(dataset), picture)
    tools = {source.id: source.tool for source in view.sources()}
    return {
        "id": picture.id,
        "name": picture.name,
        "path": picture.path,
        "hash": picture.hash[:HASH_LETTERS],
        "width": picture.width,
        "height": picture.height,
        "crop": store.marks("crop", picture_id).get(picture_id),
        "mask": store.marks("mask", picture_id).get(picture_id),
        "caption": caption,
        "tokens": {encoder: count_tokens(encoder, caption) for encoder in TOKENIZERS},
        "text": next((version.text for version in versions if version.current), ""),
        "versions": [_version(version) for version in versions],
        "annotations": [_annotation(one) for one in sorted(view.annotations(picture_id, floor=FLOOR), key=_rank)],
        "regions": [
            {"tool": tools.get(source, ""), "source": source, "outline": region.outline, **asdict(region)}
            for source, found in regions_of(store, picture_id).items()
            for region in found
        ],
    }


def source_json(source: Source) -> dict[str, Any]:
    policy = source.policy
    return {
        "id": source.id,
        "name": source.tool.removeprefix(TAGGER),
        "version": source.version,
        "settings": source.settings,
        "thresholds": dict(policy.thresholds),
        "per_tag": {pretty(name): value for name, value in policy.per_tag.items()},
        "mcut": list(policy.mcut),
        "enabled": policy.enabled,
        "weight": policy.weight,
        "subtracts": policy.subtracts,
    }


def filter_of(tag: str) -> str:
    """The words of the filter language for exactly this tag; a quote in it is left open, since quotes hold words."""
    tag = tag.replace('"', "?")
    return f'tag:"{tag}"' if any(character in tag for character in ' ()"') else f"tag:{tag}"


def _version(version: CaptionVersion) -> dict[str, Any]:
    return {
        "id": version.id,
        "tool": version.tool,
        "text": version.text,
        "time": version.created,
        "current": version.current,
    }


def _rank(one: Annotation) -> tuple[bool, bool, float]:
    """Ratings last, then what does not count, then by score."""
    return one.category == RATING, not one.present, -one.score


def _annotation(one: Annotation) -> dict[str, Any]:
    opinions = [
        {"tool": o.tool, "short": o.tool.rsplit(":", 1)[-1].rsplit("/", 1)[-1], "score": round(o.score, 4)}
        for o in one.opinions
    ]
    return {
        "name": one.name,
        "shown": pretty(one.name),
        "filter": filter_of(one.name),
        "category": one.category,
        "present": one.present,
        "decision": one.decision,
        "score": round(one.score, 4),
        "opinions": opinions,
    }
