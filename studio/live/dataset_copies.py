"""Near copies for the page: side by side with what tells which is better, and what is decided of them."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from engine.dataset.copies import set_alternates
from engine.dataset.library import Dataset
from engine.dataset.records import RATING, Picture
from engine.dataset.view import View
from engine.workspace import Workspace
from studio.live.dataset_show import HASH_LETTERS

MOST_GROUPS = 100
FACTS = ("pixels", "bytes", "sharpness", "tags")


def shown(view: View) -> dict[str, Any]:
    """Groups of near copies; in each the picture first that is most often the best, in `best` by what."""
    found: dict[int, list[int]] = defaultdict(list)
    for place, group in enumerate(view.near_copies().tolist()):
        if group >= 0:
            found[group].append(place)
    sharp, tags = view.measured("sharpness"), view.hits(lambda _, category: category != RATING)
    pictures = view.pictures()
    groups = sorted(found.values(), key=lambda places: pictures[places[0]].path)
    rows = [
        _ranked([_facts(pictures[i], float(sharp[i]), int(tags[i])) for i in places]) for places in groups[:MOST_GROUPS]
    ]
    return {"total": len(groups), "groups": rows}


def better(workspace: Workspace, dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    """Of each group the `keep` picture stays, its `others` are taken out of the dataset; all as one edit."""
    keep = [dataset.store.picture(int(id)) for id in body["keep"]]
    if not keep:
        raise ValueError("no picture is kept")
    others = {int(id) for id in body["others"]} - {picture.id for picture in keep}
    title = f"★ {keep[0].name}" if len(keep) == 1 else f"★ {len(keep)} ▢"
    return {"changed": dataset.store.remove_pictures(sorted(others), title) is not None}


def alternates(workspace: Workspace, dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    """These `pictures` all stay, and are no copies of each other."""
    ids = [dataset.store.picture(int(id)).id for id in body["pictures"]]
    if len(ids) < 2:
        raise ValueError("one picture alone has no alternates")
    name = dataset.store.picture(ids[0]).name
    return {"changed": set_alternates(dataset.store, ids, f"≠ {name} ({len(ids)})") is not None}


def _facts(picture: Picture, sharpness: float, tags: int) -> dict[str, Any]:
    return {
        "id": picture.id,
        "hash": picture.hash[:HASH_LETTERS],
        "name": picture.name,
        "width": picture.width,
        "height": picture.height,
        "format": picture.format,
        "pixels": picture.width * picture.height,
        "bytes": picture.bytes,
        "sharpness": round(sharpness, 1),
        "tags": tags,
    }


def _ranked(group: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With `best`: in which facts a picture is ahead of all that differ. The likeliest to keep comes first."""
    for one in group:
        most = [fact for fact in FACTS if one[fact] == max(other[fact] for other in group)]
        one["best"] = [fact for fact in most if any(other[fact] < one[fact] for other in group)]
    return sorted(group, key=lambda one: (-one["pixels"], -len(one["best"]), -one["bytes"], one["name"]))
