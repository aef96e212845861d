"""What a run found, into the store: readings, regions, and captions as versions that become current by one edit.

Captions are gathered for some seconds before they are written: a run over 100,000 pictures is one entry of the undo
list, that grows while it runs. What was not written when a run is killed is read again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from engine.dataset.library import Dataset
from engine.dataset.records import USER, Changes, Event, Picture, Reading
from engine.dataset.regions import Region, add_regions, regions_by, regions_of
from engine.errors import EaselError, InputError
from taggers.reader import Found
from taggers.similarity import SIMILARITY_TAG
from taggers.tool import Answer
from taggers.writing import reading_of

FLUSH_SECONDS = 5.0
FLUSH_COUNT = 256
_MINE = (USER, "sidecar")


class NoAnswer(InputError):
    en = "{name}: the model gave no answer{why}. Raise the longest answer, or ask otherwise."
    zh = "{name}：模型没有给出回答{why_zh}。请增大最长回答，或换一种提问方式。"


def known_to(dataset: Dataset, source: int) -> set[int]:
    """Pictures that a source has read, described or looked through already: what a resumed run skips."""
    described = {row[0] for row in dataset.store.rows("SELECT picture FROM captions WHERE source=?", source)}
    return dataset.store.read_by(source) | described | regions_by(dataset.store, source)


class Results:
    """Writes for one source. `replace` as CaptionTool has it."""

    def __init__(self, dataset: Dataset, source: int, title: str, replace: str = "none") -> None:
        self._dataset, self._source, self._title, self._replace = dataset, source, title, replace
        self._texts: dict[int, str] = {}
        self._event: Event | None = None
        self._flushed = time.monotonic()
        self.cut = 0

    def add(self, found: Mapping[Picture, Found]) -> dict[Picture, EaselError]:
        """Take a batch. Returns what could not be taken, with why."""
        readings: dict[int, Reading] = {}
        regions: dict[int, tuple[Region, ...]] = {}
        refused: dict[Picture, EaselError] = {}
        for picture, one in found.items():
            if isinstance(one, EaselError):
                refused[picture] = one
            elif isinstance(one, Reading):
                readings[picture.id] = one
            else:
                self._take(picture, one, readings, regions, refused)
        if readings:
            self._dataset.store.add_readings(self._source, readings)
        if regions:
            add_regions(self._dataset.store, self._source, regions)
        if len(self._texts) >= FLUSH_COUNT or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()
        return refused

    def flush(self) -> None:
        """Write the captions gathered so far."""
        texts, self._texts, self._flushed = self._texts, {}, time.monotonic()
        if texts:
            self._event = self._dataset.store.grow(self._event, self._title, lambda: self._changes(texts))

    def _take(
        self,
        picture: Picture,
        answer: Answer,
        readings: dict[int, Reading],
        regions: dict[int, tuple[Region, ...]],
        refused: dict[Picture, EaselError],
    ) -> None:
        self.cut += answer.cut
        if answer.regions is not None:
            regions[picture.id] = (*self._kept(picture, answer), *answer.regions)
        if answer.score is not None:
            readings[picture.id] = Reading([(SIMILARITY_TAG, SIMILARITY_TAG, answer.score)])
        elif answer.tags is not None:
            readings[picture.id] = reading_of(answer.tags)
        elif answer.text:
            self._texts[picture.id] = answer.text
        elif answer.regions is None:
            why = (" before its longest answer ended", "（在达到最长回答之前）") if answer.cut else ("", "")
            refused[picture] = NoAnswer(name=picture.name, why=why[0], why_zh=why[1])

    def _kept(self, picture: Picture, answer: Answer) -> list[Region]:
        """Regions that this source found before, where the answer adds to them; one with the same outline gives way."""
        if not answer.more:
            return []
        new = {region.outline for region in answer.regions or ()}
        before = regions_of(self._dataset.store, picture.id).get(self._source, [])
        return [region for region in before if region.outline not in new]

    def _changes(self, texts: Mapping[int, str]) -> Changes:
        store, changes = self._dataset.store, Changes()
        for picture, text in texts.items():
            version = store.add_caption(picture, self._source, text)
            now = store.rows(
                "SELECT c.id, s.tool FROM pictures p JOIN captions c ON c.id=p.caption "
                "JOIN sources s ON s.id=c.source WHERE p.id=?",
                picture,
            )
            free = not now or self._replace == "all" or (self._replace == "all but mine" and now[0][1] not in _MINE)
            if free and self._replace != "none":
                changes.captions.append((picture, now[0][0] if now else None, version))
        return changes
