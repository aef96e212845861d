"""What the text encoder and the UNet learn from: pictures with captions, and what each caption's attributes are."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image

from studio.demo.captions import caption, nonsense
from studio.demo.drawing import render
from studio.demo.oddities import Oddity, render_oddity, sample_nameless, sample_oddity
from studio.demo.spec import (
    CHARACTERS,
    COLOURS,
    COUNTS,
    FACES,
    GROUNDS,
    PLACES,
    SHAPES,
    SIZES,
    TEXTURES,
    Spec,
    sample_seen,
)

# attribute of Spec -> its values, for the linear heads on the text encoder
ATTRIBUTES: dict[str, list[Any]] = {
    "shape": [*SHAPES, "ghost"],
    "colour": list(COLOURS),
    "ground": list(GROUNDS),
    "texture": ["", *TEXTURES],
    "outlined": [False, True],
    "face": ["", *FACES],
    "size": ["", *SIZES],
    "place": ["", *PLACES],
    "count": list(COUNTS),
    "character": ["", *CHARACTERS],
}
UNKNOWN = -100  # cross_entropy's ignore_index
_ODDITY_ATTRIBUTES = ("ground", "size", "place", "count", "character")


@dataclass(frozen=True)
class Sample:
    """A picture that can be drawn, and captions that can be made of it."""

    subject: Spec | Oddity

    def draw(self, size: int = 128) -> Image.Image:
        """Its picture."""
        return render_oddity(self.subject, size) if isinstance(self.subject, Oddity) else render(self.subject, size)

    def caption(self, rng: random.Random) -> str:
        """A fresh caption; now and then with a word that means nothing, an oddity's nearly always with one."""
        if isinstance(self.subject, Oddity):
            words = [tag.replace("_", " ") for tag in self.subject.tags[rng.random() < 0.7 :]]
            words = [word for word in words if rng.random() > 0.06]
            return ", ".join(_with_nonsense(words, rng) if rng.random() < 0.9 else words)
        text = caption(self.subject, rng)
        return ", ".join(_with_nonsense(text.split(", "), rng)) if rng.random() < 0.08 else text

    def targets(self) -> list[int]:
        """The index of each attribute's value, UNKNOWN where the caption cannot say it."""
        if isinstance(self.subject, Oddity):
            return [_index(self.subject.spec, name) if name in _ODDITY_ATTRIBUTES else UNKNOWN for name in ATTRIBUTES]
        return [_index(self.subject, name) for name in ATTRIBUTES]


def sample(rng: random.Random) -> Sample:
    """Three in four from the demo world proper, none of them held out; the rest has no name."""
    kind = rng.random()
    if kind < 0.76:
        return Sample(sample_seen(rng))
    make: Callable[[random.Random], Spec | Oddity] = sample_nameless if kind < 0.86 else sample_oddity
    return Sample(make(rng))


def _with_nonsense(words: list[str], rng: random.Random) -> list[str]:
    at = rng.randint(0, len(words))
    return [*words[:at], nonsense(rng), *words[at:]]


def _index(spec: Spec, name: str) -> int:
    value = getattr(spec, name)
    return ATTRIBUTES[name].index(value) if value in ATTRIBUTES[name] else UNKNOWN
