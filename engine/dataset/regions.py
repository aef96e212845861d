"""Boxes and outlines that a model found in a picture, kept by picture and source as readings are; and masks of them.

Points are shares of the picture's sides, 0 to 1, as x1, y1, x2, y2 ...: a picture may be scaled, its regions stay.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from PIL import Image, ImageDraw

from engine.dataset.records import Changes, Event
from engine.dataset.store import Store

Shape = Literal["box", "quad", "polygon"]


@dataclass(frozen=True)
class Region:
    """`box` has two corners (left top, right bottom), `quad` four, `polygon` three or more."""

    label: str
    shape: Shape
    points: tuple[float, ...]

    @property
    def area(self) -> float:
        """Share of the picture (the shoelace formula; of a box its sides)."""
        xs, ys = self.outline[::2], self.outline[1::2]
        turns = range(len(xs))
        return abs(sum(xs[i] * ys[i - 1] - xs[i - 1] * ys[i] for i in turns)) / 2

    @property
    def outline(self) -> tuple[float, ...]:
        if self.shape != "box":
            return self.points
        left, top, right, bottom = self.points
        return (left, top, right, top, right, bottom, left, bottom)


def add_regions(store: Store, source: int, found: Mapping[int, Iterable[Region]]) -> None:
    """What a source found, by picture id, in one transaction. It replaces what this source found there before."""
    with store.writing() as revision:
        for picture, regions in found.items():
            text = json.dumps([_row(region) for region in regions], ensure_ascii=False)
            store.write(
                "INSERT OR REPLACE INTO regions (picture, source, regions, created, revision) VALUES (?,?,?,?,?)",
                (picture, source, text, time.time(), revision),
            )


def regions_of(store: Store, picture: int) -> dict[int, list[Region]]:
    """{source: what it found} in one picture."""
    rows = store.rows("SELECT source, regions FROM regions WHERE picture=?", picture)
    return {source: [_region(row) for row in json.loads(text)] for source, text in rows}


def regions_by(store: Store, source: int) -> set[int]:
    """Pictures that a source has looked through: what a resumed run skips."""
    return {row[0] for row in store.rows("SELECT picture FROM regions WHERE source=?", source)}


def remove_regions(
    store: Store, pictures: Iterable[int], title: str, *, source: int | None = None, only: Region | None = None
) -> Event | None:
    """Take regions away, as one event: all of these pictures, those of one source, or one region.

    Their pictures count as looked through all the same, so that a run that goes on does not find them again.
    """
    wanted = list(dict.fromkeys(pictures))

    def make() -> Changes:
        changes = Changes()
        for picture in wanted:
            for who, found in regions_of(store, picture).items():
                if source in (None, who):
                    gone = [(i, region) for i, region in enumerate(found) if only in (None, region)]
                    changes.regions += [(picture, who, i, _row(region)) for i, region in gone]
        return changes

    return store.edit(title, make)


def mask_of(regions: Iterable[Region], width: int, height: int) -> Image.Image:
    """White inside the regions, black outside, in the picture's size (mode L)."""
    mask = Image.new("L", (width, height))
    draw = ImageDraw.Draw(mask)
    for region in regions:
        outline = region.outline
        draw.polygon([(x * width, y * height) for x, y in zip(outline[::2], outline[1::2], strict=True)], fill=255)
    return mask


def _row(region: Region) -> dict[str, object]:
    """As JSON has it, so that it is equal to what was read."""
    return {**asdict(region), "points": list(region.points)}


def _region(row: Mapping[str, object]) -> Region:
    return Region(**{**row, "points": tuple(row["points"])})  # type: ignore[arg-type]
