"""What the tools under a dataset's grid ask for: one function a question. Nothing is changed by asking."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from engine.dataset import compare, review
from engine.dataset.arrays import TAGGER
from engine.dataset.autocomplete import ListedTag, complete, read_tag_list
from engine.dataset.captions import CaptionRules, pretty
from engine.dataset.charts import charts
from engine.dataset.health import health
from engine.dataset.library import Dataset
from engine.dataset.view import View
from engine.errors import InputError
from engine.workspace import Workspace
from studio.live import dataset_copies
from studio.live.dataset_show import HASH_LETTERS, filter_of
from studio.live.forms import form_of

MOST_ROWS = 200  # of a table

Ask = Callable[["Asked"], Any]


class UnknownQuestion(InputError):
    en = "A dataset can't be asked for '{what}'. Known: {known}."
    zh = "无法向数据集查询“{what}”。已知：{known}。"


@dataclass
class TagLists:
    """Tag lists of a workspace's `tags` folder, read once and again when a file changes."""

    workspace: Workspace
    _read: dict[str, tuple[int, list[ListedTag]]] = field(default_factory=dict)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.workspace.tag_lists.glob("*.csv"))

    def rows(self, name: str) -> list[ListedTag]:
        """Rows of a list; none where it is gone."""
        if name not in self.names():
            return []
        path = self.workspace.tag_lists / name
        stamp = path.stat().st_mtime_ns
        if self._read.get(name, (0, []))[0] != stamp:
            self._read[name] = stamp, read_tag_list(path)
        return self._read[name][1]


@dataclass(frozen=True)
class Asked:
    """A question: about what, and the words of the address."""

    dataset: Dataset
    view: View
    lists: TagLists
    query: Mapping[str, str]
    side: int  # of the pictures of a training

    def number(self, name: str) -> int:
        text = self.query.get(name, "")
        return int(text) if text.isdecimal() and len(text) < 16 else 0


def ask(what: str, asked: Asked) -> Any:
    if what not in ASKS:
        raise UnknownQuestion(what=what[:40], known=", ".join(ASKS))
    return ASKS[what](asked)


def _health(asked: Asked) -> dict[str, Any]:
    measured = asked.view.measured("sharpness")
    card = health(asked.dataset, asked.view, asked.side)
    return {
        **asdict(card),
        "charts": {name: [asdict(bar) for bar in bars] for name, bars in charts(asked.view).items()},
        "findings": [asdict(finding) for finding in card.findings],
        "unmeasured": int(np.isnan(measured).sum()),
    }


def _review(asked: Asked) -> dict[str, Any]:
    """For each tagger how often it was right, and which thresholds fit the decisions better; how far taggers agree."""
    view = asked.view
    taggers = [source for source in view.sources() if source.tool.startswith(TAGGER)]
    names = {source.id: source.tool.removeprefix(TAGGER) for source in taggers}
    rows = []
    for source in taggers:
        overall, by_tag = review.metrics(view, source.id)
        rows.append(
            {
                "id": source.id,
                "name": names[source.id],
                "overall": _score(overall),
                "tags": [_score(score) for score in by_tag[:MOST_ROWS]],
                "suggestions": [
                    {**asdict(s), "shown": pretty(s.name)} for s in review.suggestions(view, source.id)[:MOST_ROWS]
                ],
            }
        )
    agreed = review.agreement(view)
    return {
        "taggers": rows,
        "agreement": [[names[a], names[b], round(share, 4)] for (a, b), share in agreed.items()],
        "decided": int((view.decided() > 0).sum()),
        "total": len(view.pictures()),
    }


def _score(score: review.Score) -> dict[str, Any]:
    rates = {name: round(getattr(score, name), 4) for name in ("precision", "recall", "f1", "miss_rate")}
    return {**asdict(score), "shown": pretty(score.name), "filter": filter_of(score.name), **rates}


def _compare(asked: Asked) -> dict[str, Any]:
    """Who wrote captions, and two of them side by side."""
    store = asked.dataset.store
    who = compare.writers(store)
    ids = [source.id for source, _ in who]
    left, right = asked.number("left"), asked.number("right")
    if left not in ids:
        left = ids[0] if ids else 0
    if right not in ids or right == left:
        right = next((id for id in ids if id != left), 0)
    found = compare.pairs(store, asked.view.pictures(), left, right) if left and right else []
    rows = [
        {
            "picture": pair.picture.id,
            "hash": pair.picture.hash[:HASH_LETTERS],
            "name": pair.picture.name,
            "left": {"id": pair.left[0], "text": pair.left[1]},
            "right": {"id": pair.right[0], "text": pair.right[1]},
            "better": pair.better,
        }
        for pair in found[:MOST_ROWS]
    ]
    writers = [{"id": s.id, "name": s.tool, "version": s.version, "n": n, "settings": s.settings} for s, n in who]
    return {"writers": writers, "left": left, "right": right, "pairs": rows, "tally": asdict(compare.tally(found))}


def _history(asked: Asked) -> dict[str, Any]:
    return {"events": [asdict(event) for event in asked.dataset.store.events(MOST_ROWS)]}


def _complete(asked: Asked) -> dict[str, Any]:
    listed = asked.lists.rows(asked.query.get("list", ""))
    found = complete(asked.query.get("q", ""), asked.view.counts(), listed, limit=12)
    return {
        "tags": [
            {
                "name": one.tag.name,
                "shown": pretty(one.tag.name),
                "category": one.tag.category,
                "count": one.tag.count,
                "own": one.tag.own,
                "alias": pretty(one.alias),
            }
            for one in found
        ]
    }


def _rules(asked: Asked) -> dict[str, Any]:
    return {"fields": form_of(CaptionRules)}


ASKS: dict[str, Ask] = {
    "health": _health,
    "copies": lambda asked: dataset_copies.shown(asked.view),
    "review": _review,
    "compare": _compare,
    "history": _history,
    "complete": _complete,
    "rules": _rules,
}
