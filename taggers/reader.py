"""What a run needs of an opened tool, whichever it is: a picture prepared in a thread, and a batch of them read.

It runs in the worker, or on another machine. It knows no dataset: pictures come in as pixels, findings go out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from engine.dataset.records import Policy, Reading
from engine.errors import EaselError, FileError, PictureError
from taggers.tool import About, Answer


class ScoresNotNumbers(FileError):
    en = (
        "{name} gave scores that are not numbers (NaN) for {picture}. The file is broken, or half precision overflows: "
        "take float32 where it can be chosen."
    )
    zh = "{name} 对 {picture} 给出了非数字（NaN）分数。模型文件已损坏，或半精度溢出：可选择数值类型时请用 float32。"


class UnfitPicture(PictureError):
    """The tool can do nothing with this picture, and neither tool nor file is broken: the others are read."""


@dataclass(frozen=True)
class Origin:
    """Who is going to write: what the store keeps of a source."""

    tool: str
    version: str
    settings: Mapping[str, Any]
    policy: Policy


Found = Reading | Answer | EaselError


class Reader(Protocol):
    title: str
    batch_size: int  # may become smaller while it runs
    wants_words: bool  # whether `read` uses the pictures' own words

    @property
    def at_least(self) -> int | None:
        """A picture may be decoded down to twice this many pixels; None needs all of it."""
        ...

    @property
    def provider(self) -> str:
        """Where it really runs; empty before the first batch."""
        ...

    def origin(self) -> Origin: ...

    def prepare(self, image: Image.Image) -> Any:
        """An RGB picture as `read` wants it. Called from several threads at once."""
        ...

    def read(self, prepared: Sequence[Any], about: Sequence[About]) -> Sequence[Found]:
        """A batch, in order. Raises typed errors; one that is the picture's alone is given in its place."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Waits(Protocol):
    """A reader that waits for others, and is told how to know that nobody wants the answer any more."""

    def stop_when(self, cancelled: Callable[[], bool]) -> None: ...
