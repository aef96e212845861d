"""Pictures through one or several readers: decoded once by threads ahead of the models, read in batches, in order.

The list of pictures is never whole in memory: numbers are, and some hundred pictures at a time.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from engine.dataset.captions import pretty
from engine.dataset.decoding import PictureGone, open_rgb
from engine.dataset.export import rules_of
from engine.dataset.library import Dataset
from engine.dataset.records import RATING, Picture
from engine.dataset.view import View
from engine.errors import PictureError
from taggers.reader import Reader
from taggers.tool import About

CHUNK = 512  # pictures whose rows and words are in memory at a time
Prepared = list[Any] | PictureError  # for each reader


def chosen(dataset: Dataset, only: Iterable[int] | None = None) -> list[int]:
    """Ids of the pictures that have a file and were not removed, or of those among `only`."""
    rows = dataset.store.rows(
        "SELECT id FROM pictures p WHERE removed=0 AND EXISTS (SELECT 1 FROM files WHERE picture=p.id) ORDER BY id"
    )
    wanted = None if only is None else set(only)
    return [id for (id,) in rows if wanted is None or id in wanted]


def chunks(dataset: Dataset, ids: Sequence[int]) -> Iterator[list[Picture]]:
    for start in range(0, len(ids), CHUNK):
        yield dataset.store.pictures(ids[start : start + CHUNK])


class Words:
    """The pictures' own words for prompts; a view is kept only where some reader wants them."""

    def __init__(self, dataset: Dataset, wanted: bool) -> None:
        self._dataset = dataset
        self._view = View(dataset.store) if wanted else None
        self._trigger = rules_of(dataset).trigger_word

    def about(self, pictures: Sequence[Picture]) -> dict[int, About]:
        if self._view is None:
            return {picture.id: About(name=picture.name, key=picture.hash) for picture in pictures}
        captions = self._view.captions()
        places = dict(zip((p.id for p in pictures), self._view.places(p.id for p in pictures), strict=False))
        found = {}
        for picture in pictures:
            tags = sorted((t for t in self._view.tags(picture.id) if t.category != RATING), key=lambda t: -t.score)
            found[picture.id] = About(
                name=picture.name,
                folder=picture.path.rpartition("/")[0],
                tags=tuple(pretty(tag.name) for tag in tags),
                characters=tuple(pretty(tag.name) for tag in tags if tag.category == "character"),
                caption=captions[places[picture.id]] if picture.id in places else "",
                trigger=self._trigger,
                key=picture.hash,
            )
        return found


class Decoder:
    """Pictures decoded once for all readers, never more than `ahead` at a time before they are asked for."""

    def __init__(self, dataset: Dataset, readers: Sequence[Reader], threads: int, ahead: int) -> None:
        self._dataset, self._readers, self._ahead = dataset, readers, ahead
        sizes = [reader.at_least for reader in readers]
        self._at_least = None if None in sizes else max(size for size in sizes if size is not None)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def each(self, pictures: Iterable[Picture], cancelled: Callable[[], bool]) -> Iterator[tuple[Picture, Prepared]]:
        """In order. Stops early when cancelled."""
        waiting: deque[tuple[Picture, Future[Prepared]]] = deque()
        for picture in pictures:
            waiting.append((picture, self._pool.submit(self._decode, picture)))
            if len(waiting) >= self._ahead:
                first, future = waiting.popleft()
                yield first, future.result()
            if cancelled():
                return
        for first, future in waiting:
            yield first, future.result()

    def _decode(self, picture: Picture) -> Prepared:
        error: PictureError = PictureGone(name=picture.path)
        for path in picture.paths:  # any of the files with this content will do
            try:
                image = open_rgb(self._dataset.path(path), at_least=self._at_least)
                return [reader.prepare(image) for reader in self._readers]
            except PictureError as problem:
                error = problem
        return error


def decoding_threads(wanted: int) -> int:
    return wanted or min(8, max(2, os.cpu_count() or 2))
