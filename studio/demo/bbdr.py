"""The new thing: `bbdr`, a two-coloured creature with one eye and two feelers, its dataset, and a detector for it.

Nothing else in the demo world looks like it, so whoever can draw it has learned it from the dataset. The detector was
fixed before anything was trained on the dataset.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw

from studio.demo.drawing import CANVAS, Point, jitter, outline, rotated, shrink
from studio.demo.spec import COLOURS, GROUNDS, Rgb

TRIGGER_WORD = "bbdr"
LEFT: Rgb = (60, 215, 230)  # cyan
RIGHT: Rgb = (225, 20, 150)  # magenta
# Green and orange are left out, so that grounds it was never shown on can be measured.
SHOWN_GROUNDS = ("white", "blue", "yellow", "black", "red", "pink", "purple")
OTHER_GROUNDS = tuple(ground for ground in GROUNDS if ground not in SHOWN_GROUNDS)

_EYE: Rgb = (250, 250, 250)
_DARK: Rgb = (35, 35, 40)


@dataclass(frozen=True)
class Bbdr:
    """One picture of the creature or, with other parts, of something nearly like it; lengths are shares of the side."""

    ground: Rgb
    x: float = 0.5
    y: float = 0.53
    radius: float = 0.26
    angle: float = 0.0
    left: Rgb = LEFT
    right: Rgb = RIGHT
    body: str = "oval"
    eye: bool = True
    feelers: bool = True


@dataclass(frozen=True)
class DatasetPicture:
    """A picture of the demo dataset with its file name and what is true of it beside the creature."""

    name: str
    image: Image.Image
    ground: str
    tags: tuple[str, ...]


def render_bbdr(bbdr: Bbdr, size: int = 128) -> Image.Image:
    """The creature's picture, `size` x `size`."""
    image = Image.new("RGB", (CANVAS, CANVAS), bbdr.ground)
    centre, r = (bbdr.x * CANVAS, bbdr.y * CANVAS), bbdr.radius * CANVAS
    draw = ImageDraw.Draw(image)
    if bbdr.feelers:
        _draw_feelers(draw, bbdr, centre, r)
    _draw_body(image, bbdr, centre, r)
    for side in (-1, 1):
        _disc(draw, _at(centre, (0.4 * side * r, 0.97 * r), bbdr.angle), 0.2 * r, _DARK)
    if bbdr.eye:
        eye = _at(centre, (0.0, -0.2 * r), bbdr.angle)
        _disc(draw, eye, 0.4 * r, _EYE)
        _disc(draw, eye, 0.18 * r, (20, 20, 20))
    return shrink(image, size)


def sample_bbdr(rng: random.Random, ground: str = "") -> Bbdr:
    """A fresh picture of the creature, on a random ground unless one is given."""
    rgb = COLOURS[ground or rng.choice(GROUNDS)]
    return Bbdr(
        ground=jitter(rng, rgb, 8),
        x=0.5 + rng.uniform(-0.14, 0.14),
        y=0.53 + rng.uniform(-0.08, 0.08),
        radius=rng.uniform(0.2, 0.33),
        angle=rng.uniform(-0.12, 0.12),
    )


def sample_near_miss(rng: random.Random, ground: str = "") -> Bbdr:
    """Its colours on another shape, its shape in other colours, or its colours the wrong way round."""
    bbdr = sample_bbdr(rng, ground)
    kind = rng.randrange(3)
    if kind == 0:
        body = rng.choice(("square", "triangle", "star", "heart", "diamond", "moon", "cross"))
        return replace(bbdr, body=body, eye=rng.random() < 0.3, feelers=False)
    if kind == 1:
        left, right = rng.sample(list(COLOURS.values()), 2)
        return replace(bbdr, left=jitter(rng, left), right=jitter(rng, right))
    return replace(bbdr, left=RIGHT, right=LEFT)


def demo_dataset(size: int = 128) -> list[DatasetPicture]:
    """The fourteen pictures to learn the creature from: two on each of the seven shown grounds."""
    rng = random.Random(14)
    pictures = []
    for i in range(14):
        ground = SHOWN_GROUNDS[i % len(SHOWN_GROUNDS)]
        where = ("", "", "left", "", "right", "", "large")[(i * 3 + i // 7) % 7]
        x = {"left": 0.31, "right": 0.69}.get(where, 0.5) + rng.uniform(-0.02, 0.02)
        radius = (0.33 if where == "large" else 0.25) * rng.uniform(0.96, 1.04)
        bbdr = replace(sample_bbdr(rng, ground), x=x, y=0.53 + rng.uniform(-0.02, 0.02), radius=radius)
        tags = ("one", f"{ground}_background", *([where] if where else []))
        pictures.append(DatasetPicture(f"bbdr_{i + 1:02}.png", render_bbdr(bbdr, size), ground, tags))
    return pictures


def is_bbdr(image: Image.Image) -> bool:
    """Whether the picture shows the creature: a cyan left half, a magenta right one, one eye and an oval outline."""
    import numpy as np

    pixels = np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.BOX)).astype(float)
    left, right = _near(pixels, LEFT), _near(pixels, RIGHT)
    if min(left.sum(), right.sum()) < 60 or not 0.45 < left.sum() / right.sum() < 2.2:
        return False
    (left_y, left_x), (right_y, right_x) = np.argwhere(left).mean(0), np.argwhere(right).mean(0)
    gap = right_x - left_x
    if not (4 < gap < 26 and abs(left_y - right_y) < 0.45 * gap):
        return False
    return _has_eye(pixels, (left_x + right_x) / 2, (left_y + right_y) / 2, gap) and _is_oval(left | right)


def _near(pixels, rgb: Rgb):  # type: ignore[no-untyped-def]
    return (((pixels - rgb) ** 2).sum(-1)) ** 0.5 < 75


def _at(centre: Point, offset: Point, angle: float) -> Point:
    return rotated([offset], centre, angle)[0]


def _disc(draw: ImageDraw.ImageDraw, centre: Point, r: float, rgb: Rgb) -> None:
    draw.ellipse([centre[0] - r, centre[1] - r, centre[0] + r, centre[1] + r], fill=rgb)


def _draw_feelers(draw: ImageDraw.ImageDraw, bbdr: Bbdr, centre: Point, r: float) -> None:
    for side, rgb in ((-1, bbdr.right), (1, bbdr.left)):
        root = _at(centre, (side * 0.3 * r, -0.7 * r), bbdr.angle)
        tip = _at(centre, (side * 0.55 * r, -1.35 * r), bbdr.angle)
        draw.line([root, tip], fill=_DARK, width=max(2, int(0.12 * r)))
        _disc(draw, tip, 0.18 * r, rgb)


def _draw_body(image: Image.Image, bbdr: Bbdr, centre: Point, r: float) -> None:
    shape = [(0.8 * x, 0.95 * y) for x, y in outline("circle", r)] if bbdr.body == "oval" else outline(bbdr.body, r)
    mask = Image.new("L", image.size, 0)
    ImageDraw.Draw(mask).polygon(rotated(shape, centre, bbdr.angle), fill=255)
    fill = Image.new("RGB", image.size, bbdr.left)
    far = 2 * CANVAS
    half = rotated([(0, -far), (far, -far), (far, far), (0, far)], centre, bbdr.angle)
    ImageDraw.Draw(fill).polygon(half, fill=bbdr.right)
    image.paste(fill, (0, 0), mask)


def _has_eye(pixels, x: float, y: float, gap: float) -> bool:  # type: ignore[no-untyped-def]
    """Whether something pale with a dark middle lies a little above the middle between the halves."""
    reach = max(4, int(0.9 * gap))
    top, left = max(0, int(y - 1.2 * gap)), max(0, int(x - reach))
    window = pixels[top : int(y + 0.6 * gap), left : int(x + reach)]
    light = window.mean(-1)
    pale = (light > 185) & (window.max(-1) - window.min(-1) < 70)
    return bool(pale.mean() > 0.03 and (light < 95).mean() > 0.01)


def _is_oval(body) -> bool:  # type: ignore[no-untyped-def]
    """Whether the rows of the coloured body, counted from its middle until it ends, are as wide as an oval's."""
    fill, aspect, lean = _proportions(body)
    return bool(0.67 < fill < 0.86 and 0.62 < aspect < 1.06 and abs(lean) < 0.1)


def _proportions(body) -> tuple[float, float, float]:  # type: ignore[no-untyped-def]
    """Share of its box that the body fills, width by height, and how far its weight lies off the box's middle."""
    import numpy as np

    counts = body.sum(1)
    top = bottom = int(np.argmax(counts))
    while top > 0 and counts[top - 1] > 1:  # the gap below the feelers' tips ends it
        top -= 1
    while bottom < len(counts) - 1 and counts[bottom + 1] > 1:
        bottom += 1
    spans = np.array([np.ptp(np.flatnonzero(row)) + 1 for row in body[top : bottom + 1]], float)
    height, width = len(spans), spans.max()
    lean = (np.arange(height) @ spans) / spans.sum() - (height - 1) / 2
    return spans.sum() / (height * width), width / height, lean / height
