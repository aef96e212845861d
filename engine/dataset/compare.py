"""Two captioners side by side: the newest caption of each for the same picture, and who wins the votes.

A vote is between two versions, not two tools: when a tool writes anew, its old votes stay with what was read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.dataset.records import Picture, Source
from engine.dataset.store import Store


@dataclass(frozen=True)
class Pair:
    """One picture described twice. `better` is the id of the preferred version, 0 for neither, None without a vote."""

    picture: Picture
    left: tuple[int, str]  # id of the version, text
    right: tuple[int, str]
    better: int | None


@dataclass(frozen=True)
class Tally:
    """How the votes between two sources stand."""

    left: int
    right: int
    neither: int
    open: int


def writers(store: Store) -> list[tuple[Source, int]]:
    """Sources that wrote captions, with for how many pictures."""
    counts = store.caption_sources()
    return [(source, counts[source.id]) for source in store.sources() if source.id in counts]


def pairs(store: Store, pictures: Sequence[Picture], left: int, right: int) -> list[Pair]:
    """The pictures that both sources described, those without a vote first."""
    one, other, votes = store.newest_captions(left), store.newest_captions(right), store.votes()
    found = []
    for picture in pictures:
        if picture.id in one and picture.id in other:
            a, b = one[picture.id], other[picture.id]
            found.append(Pair(picture, a, b, votes.get((min(a[0], b[0]), max(a[0], b[0])))))
    return sorted(found, key=lambda pair: pair.better is not None)


def tally(found: Sequence[Pair]) -> Tally:
    return Tally(
        left=sum(pair.better == pair.left[0] for pair in found),
        right=sum(pair.better == pair.right[0] for pair in found),
        neither=sum(pair.better == 0 for pair in found),
        open=sum(pair.better is None for pair in found),
    )
