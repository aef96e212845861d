"""What can be in a picture of the demo world, and which combinations training never sees. It draws nothing."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

Rgb = tuple[int, int, int]

SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "moon", "cross")
COLOURS: dict[str, Rgb] = {
    "red": (214, 40, 40),
    "orange": (245, 130, 32),
    "yellow": (250, 214, 50),
    "green": (52, 160, 72),
    "blue": (40, 90, 210),
    "purple": (130, 60, 180),
    "pink": (248, 150, 190),
    "white": (246, 246, 246),
    "black": (28, 28, 32),
}
GROUNDS = tuple(COLOURS)
TEXTURES = ("striped", "dotted")
FACES = ("happy", "sad")
SIZES = ("small", "large")
PLACES = ("left", "right", "top", "bottom")
COUNTS = {1: "one", 2: "two", 3: "three"}
# name -> (shape, colour) of the three characters; "ghost" occurs in no other picture
CHARACTERS = {"sunny": ("circle", "yellow"), "robo": ("square", "blue"), "boo": ("ghost", "white")}

GENERAL_TAGS = (
    *SHAPES,
    *COLOURS,
    *(f"{ground}_background" for ground in GROUNDS),
    *TEXTURES,
    *FACES,
    "outlined",
    *SIZES,
    *PLACES,
    *COUNTS.values(),
)

# Pairs that look too much alike to tell a figure from its ground.
_TOO_CLOSE = {
    frozenset(pair)
    for pair in (
        ("red", "orange"),
        ("orange", "yellow"),
        ("pink", "white"),
        ("blue", "purple"),
        ("black", "blue"),
        ("black", "purple"),
    )
}


@dataclass(frozen=True)
class Spec:
    """One picture. An empty string means "nothing said"; `seed` drives the jitter alone.

    `fill` paints the figure in a colour that has no name here; `colour` is empty then.
    """

    shape: str = "circle"
    colour: str = "red"
    ground: str = "white"
    texture: str = ""
    outlined: bool = False
    face: str = ""
    size: str = ""
    place: str = ""
    count: int = 1
    character: str = ""
    seed: int = 0
    fill: Rgb | None = None


def contrasts(colour: str, ground: str) -> bool:
    """Whether a figure of this colour can be told from this ground."""
    return colour != ground and frozenset((colour, ground)) not in _TOO_CLOSE


def is_held_out(spec: Spec) -> bool:
    """Whether training never sees this (shape, colour, ground), in any size, place, count or texture.

    One in eight combinations, spread evenly: every shape, colour and ground is held out in some company only.
    """
    if spec.character or spec.colour not in COLOURS:
        return False
    colour = list(COLOURS).index(spec.colour)
    return (5 * SHAPES.index(spec.shape) + 3 * colour + GROUNDS.index(spec.ground)) % 8 == 0


def sample_spec(rng: random.Random, character_share: float = 0.08) -> Spec:
    """A random picture, held-out combinations included."""
    if rng.random() < character_share:
        return _sample_character(rng)
    ground = rng.choice(GROUNDS)
    spec = Spec(
        shape=rng.choice(SHAPES),
        colour=rng.choice([colour for colour in COLOURS if contrasts(colour, ground)]),
        ground=ground,
        outlined=rng.random() < 0.15,
        count=rng.choices((1, 2, 3), (0.76, 0.13, 0.11))[0],
        seed=rng.getrandbits(31),
    )
    if spec.count > 1:
        return replace(spec, texture=rng.choices(("", *TEXTURES), (0.72, 0.14, 0.14))[0])
    size = rng.choices(("", *SIZES), (0.59, 0.18, 0.23))[0]
    # A small figure has too few pixels for a pattern or a face, a large one has no room to move.
    texture = "" if size == "small" else rng.choices(("", *TEXTURES), (0.70, 0.15, 0.15))[0]
    place = rng.choice(PLACES) if size != "large" and rng.random() < 0.5 else ""
    face = rng.choice(FACES) if size != "small" and not texture and rng.random() < 0.35 else ""
    return replace(spec, size=size, texture=texture, place=place, face=face)


def sample_seen(rng: random.Random, character_share: float = 0.08) -> Spec:
    """A random picture whose combination training may use."""
    while is_held_out(spec := sample_spec(rng, character_share)):
        pass
    return spec


def sample_held_out(rng: random.Random) -> Spec:
    """A random picture whose combination training never saw."""
    while not is_held_out(spec := sample_spec(rng, character_share=0.0)):
        pass
    return spec


def tags(spec: Spec) -> list[str]:
    """The picture's tags: a character first, then general ones, with underscores as in selected_tags.csv."""
    words = [
        spec.character,
        COUNTS[spec.count],
        spec.shape if spec.shape in SHAPES else "",
        spec.colour,
        f"{spec.ground}_background",
        spec.texture,
        "outlined" if spec.outlined else "",
        spec.face,
        spec.size,
        spec.place,
    ]
    return [word for word in words if word]


def _sample_character(rng: random.Random) -> Spec:
    name = rng.choice(list(CHARACTERS))
    shape, colour = CHARACTERS[name]
    size = rng.choice(("", "", "", "large"))
    return Spec(
        shape=shape,
        colour=colour,
        ground=rng.choice([ground for ground in GROUNDS if contrasts(colour, ground)]),
        face="happy",
        size=size,
        place="" if size else rng.choice(("", "", *PLACES)),
        character=name,
        seed=rng.getrandbits(31),
    )
