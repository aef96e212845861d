"""What a store keeps, as values: pictures, files, sources with their policies, readings, caption versions, events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Decision = Literal[1, 0, -1]  # yes, none, no
# what a person says of a whole picture: (left, top, right, bottom); the name of a mask's file; ids of its alternates
Mark = Literal["crop", "mask", "alternate"]
USER = "user"
GENERAL = "general"
RATING = "rating"


@dataclass(frozen=True)
class Picture:
    """A picture by what it shows. `paths` are the files with this very content, relative to the dataset's pictures."""

    id: int
    hash: str
    width: int
    height: int
    mode: str
    format: str
    bytes: int
    added: float
    paths: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        return self.paths[0] if self.paths else ""

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class FileRow:
    """One file as the last scan saw it. `problem` is an error as JSON; `sidecar` the hash of the sidecar we know."""

    path: str
    picture: int | None
    size: int
    mtime_ns: int
    problem: dict[str, Any] | None = None
    sidecar: str | None = None


@dataclass(frozen=True)
class Policy:
    """Which of a source's tags count: score > threshold of the category, or of the tag itself. All may move later.

    `mcut` lists categories cut where the scores fall most (the value was kept with each reading). `weight` is the
    source's part in a vote. What a source that `subtracts` reads is taken away from what the others read.
    """

    thresholds: Mapping[str, float] = field(default_factory=dict)
    per_tag: Mapping[str, float] = field(default_factory=dict)
    mcut: tuple[str, ...] = ()
    enabled: bool = True
    weight: float = 1.0
    subtracts: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "thresholds": dict(self.thresholds),
            "per_tag": dict(self.per_tag),
            "mcut": list(self.mcut),
            "enabled": self.enabled,
            "weight": self.weight,
            "subtracts": self.subtracts,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Policy:
        return Policy(**{**data, "mcut": tuple(data["mcut"])})


@dataclass(frozen=True)
class Source:
    """Who wrote: a tool with the version of its model and the settings that change what it reads; or the user."""

    id: int
    tool: str
    version: str
    settings_hash: str
    settings: dict[str, Any]
    policy: Policy
    created: float


@dataclass(frozen=True)
class Reading:
    """What one source read in one picture. `cuts` are MCut thresholds by category."""

    tags: Sequence[tuple[str, str, float]]  # name, category, score
    cuts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CaptionVersion:
    id: int
    picture: int
    source: int
    tool: str
    text: str
    created: float
    current: bool


@dataclass(frozen=True)
class Event:
    seq: int
    time: float
    title: str
    state: Literal["done", "undone"]


@dataclass
class Changes:
    """What an event changes, with the value before and after, as rows. This is what undo and redo apply."""

    decisions: list[tuple[int, int, int, int]] = field(default_factory=list)  # picture, term, before, after
    captions: list[tuple[int, int | None, int | None]] = field(default_factory=list)  # picture, before, after
    policies: list[tuple[int, Any, Any]] = field(default_factory=list)  # source, before, after
    meta: list[tuple[str, Any, Any]] = field(default_factory=list)  # key, before, after
    removed: list[tuple[int, int, int]] = field(default_factory=list)  # picture, before, after
    marks: list[tuple[int, str, Any, Any]] = field(default_factory=list)  # picture, kind, before, after (None: none)
    votes: list[tuple[int, int, int | None, int | None]] = field(default_factory=list)  # captions; better
    readings: list[tuple[int, int, list[str] | None, list[str] | None]] = field(default_factory=list)  # picture, source
    regions: list[tuple[int, int, int, Any]] = field(default_factory=list)  # picture, source, place, what is taken away

    @property
    def pictures(self) -> set[int]:
        of_pictures = (self.decisions, self.captions, self.removed, self.marks, self.readings, self.regions)
        return {row[0] for rows in of_pictures for row in rows}

    def __bool__(self) -> bool:
        return any(vars(self).values())
