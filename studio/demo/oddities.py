"""Pictures without a name, for training alone: creatures of random parts, figures in nameless colours, plain jumbles.

They teach the models that an unknown word may stand for anything, so that a new thing is learned from a few pictures,
and the autoencoder to carry pictures of other kinds. None has feelers, and no two-coloured one has a single eye:
what `bbdr` draws stays new.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw

from studio.demo.drawing import CANVAS, draw_figure, jitter, layout, outline, render, rotated, shrink
from studio.demo.spec import COLOURS, GROUNDS, SHAPES, Rgb, Spec, sample_seen

_BODIES = (*SHAPES, "ghost", "oval", "oval", "oval", "blob")


@dataclass(frozen=True)
class Oddity:
    """A creature of random parts on a named ground; `spec` says where it stands and how large it is."""

    spec: Spec

    @property
    def tags(self) -> list[str]:
        """What can be said about it in the demo world's words."""
        words = ["one", f"{self.spec.ground}_background", self.spec.size, self.spec.place]
        return [word for word in words if word]


def sample_oddity(rng: random.Random) -> Oddity:
    """A creature with a place, a size and a ground, and a seed for its parts."""
    size = rng.choices(("", "small", "large"), (0.6, 0.1, 0.3))[0]
    place = rng.choice(("", "left", "right", "top", "bottom")) if size != "large" else ""
    spec = Spec(ground=rng.choice(GROUNDS), size=size, place=place, colour="", seed=rng.getrandbits(31))
    return Oddity(spec)


def render_oddity(oddity: Oddity, size: int = 128) -> Image.Image:
    """The creature's picture, `size` x `size`."""
    rng = random.Random(oddity.spec.seed)
    image = Image.new("RGB", (CANVAS, CANVAS), jitter(rng, COLOURS[oddity.spec.ground], 8))
    (x, y, radius), *_ = layout(oddity.spec, rng)
    two_coloured = rng.random() < 0.6
    _draw_legs(image, x, y, radius, rng)
    _draw_body(image, x, y, radius, rng, two_coloured)
    _draw_eyes(image, x, y, radius, rng, rng.choice((0, 2, 2, 3) if two_coloured else (0, 1, 2, 3)))
    return shrink(image, size)


def sample_nameless(rng: random.Random) -> Spec:
    """A figure of the demo world in a colour that has no name there."""
    spec = sample_seen(rng, character_share=0.0)
    return replace(spec, colour="", fill=_any_rgb(rng))


def jumble(rng: random.Random, size: int = 128) -> Image.Image:
    """A pile of ellipses, figures, polygons and lines in any colours."""
    image = _backdrop(rng)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(1, 7)):
        x, y, r = rng.uniform(0, CANVAS), rng.uniform(0, CANVAS), rng.uniform(0.03, 0.4) * CANVAS
        kind = rng.random()
        if kind < 0.3:
            h = r * rng.uniform(0.4, 1.0)
            draw.ellipse([x - r, y - h, x + r, y + h], fill=_any_rgb(rng))
        elif kind < 0.6:
            draw_figure(image, replace(sample_seen(rng, 0.0), fill=_any_rgb(rng)), (x, y), r, rng)
        elif kind < 0.85:
            corners = [(x + rng.uniform(-r, r), y + rng.uniform(-r, r)) for _ in range(rng.randint(3, 6))]
            draw.polygon(corners, fill=_any_rgb(rng))
        else:
            end = (rng.uniform(0, CANVAS), rng.uniform(0, CANVAS))
            draw.line([(x, y), end], fill=_any_rgb(rng), width=rng.randint(4, 32))
    return shrink(image, size)


def any_picture(rng: random.Random, size: int = 128) -> Image.Image:
    """Mostly the demo world, one time in three something else; what the autoencoder learns from."""
    kind = rng.random()
    if kind < 0.66:
        return render(sample_seen(rng, 0.1), size)
    if kind < 0.78:
        return render_oddity(sample_oddity(rng), size)
    return jumble(rng, size)


def _any_rgb(rng: random.Random) -> Rgb:
    return rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255)


def _backdrop(rng: random.Random) -> Image.Image:
    plain = Image.new("RGB", (CANVAS, CANVAS), _any_rgb(rng))
    if rng.random() < 0.6:
        return plain
    ramp = Image.linear_gradient("L").rotate(rng.choice((0, 90, 180, 270))).resize((CANVAS, CANVAS))
    return Image.composite(plain, Image.new("RGB", (CANVAS, CANVAS), _any_rgb(rng)), ramp)


def _draw_legs(image: Image.Image, x: float, y: float, r: float, rng: random.Random) -> None:
    count = rng.choice((0, 0, 2, 2, 3, 4))
    colour, wide, round_ended = _any_rgb(rng), rng.uniform(0.1, 0.28) * r, rng.random() < 0.5
    draw = ImageDraw.Draw(image)
    for i in range(count):
        leg = x + (i - (count - 1) / 2) * 1.2 * r / count
        box = [leg - wide, y + 0.6 * r, leg + wide, y + rng.uniform(1.05, 1.25) * r]
        draw.ellipse(box, fill=colour) if round_ended else draw.rectangle(box, fill=colour)


def _draw_body(image: Image.Image, x: float, y: float, r: float, rng: random.Random, two_coloured: bool) -> None:
    """A body in one colour, or in two that meet along a line at any angle."""
    shape = rng.choice(_BODIES)
    w, h = rng.uniform(0.7, 1.0) * r, rng.uniform(0.7, 1.0) * r
    if shape in ("oval", "blob"):
        points = [(px * w / r, py * h / r) for px, py in outline("circle", r)]
        if shape == "blob":
            points = [(px * rng.uniform(0.85, 1.1), py * rng.uniform(0.85, 1.1)) for px, py in points[::4]]
    else:
        points = outline(shape, r)
    mask = Image.new("L", image.size, 0)
    ImageDraw.Draw(mask).polygon(rotated(points, (x, y), rng.uniform(-0.2, 0.2)), fill=255)
    fill = Image.new("RGB", image.size, _body_rgb(rng))
    if two_coloured:
        far = 2 * CANVAS
        half = rotated([(0, -far), (far, -far), (far, far), (0, far)], (x, y), rng.choice((0, 0, 1, 2, 3)) * 0.7854)
        ImageDraw.Draw(fill).polygon(half, fill=_body_rgb(rng))
    image.paste(fill, (0, 0), mask)


def _body_rgb(rng: random.Random) -> Rgb:
    return jitter(rng, rng.choice(list(COLOURS.values()))) if rng.random() < 0.4 else _any_rgb(rng)


def _draw_eyes(image: Image.Image, x: float, y: float, r: float, rng: random.Random, count: int) -> None:
    draw = ImageDraw.Draw(image)
    big = rng.uniform(0.14, 0.22) * r if count > 1 else rng.uniform(0.22, 0.42) * r
    for i in range(count):
        ex, ey = x + (i - (count - 1) / 2) * 2.3 * big, y - rng.uniform(0.1, 0.3) * r
        draw.ellipse([ex - big, ey - big, ex + big, ey + big], fill=(250, 250, 250))
        pupil = 0.48 * big
        draw.ellipse([ex - pupil, ey - pupil, ex + pupil, ey + pupil], fill=(20, 20, 20))
