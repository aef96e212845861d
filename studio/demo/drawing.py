"""Draws the pictures of the demo world with Pillow. The same spec and size give the same pixels."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from PIL import Image, ImageDraw

from studio.demo.spec import COLOURS, Rgb, Spec

CANVAS = 512  # everything is drawn at this size and averaged down
Point = tuple[float, float]

_DARK: Rgb = (25, 25, 30)
_LIGHT: Rgb = (250, 250, 250)


def render(spec: Spec, size: int = 128) -> Image.Image:
    """The picture of a spec, `size` x `size`."""
    rng = random.Random(spec.seed)
    image = Image.new("RGB", (CANVAS, CANVAS), jitter(rng, COLOURS[spec.ground], 8))
    for x, y, radius in layout(spec, rng):
        draw_figure(image, spec, (x, y), radius, rng)
    return shrink(image, size)


def shrink(image: Image.Image, size: int) -> Image.Image:
    """The canvas averaged down to `size` x `size`."""
    if CANVAS % size == 0:
        return image.reduce(CANVAS // size)
    return image.resize((size, size), Image.Resampling.LANCZOS)


def layout(spec: Spec, rng: random.Random) -> list[tuple[float, float, float]]:
    """Centre and radius of each figure, in canvas pixels."""
    if spec.count == 2:
        radius, dy = rng.uniform(0.165, 0.19) * CANVAS, rng.uniform(-0.08, 0.08) * CANVAS
        return [(0.27 * CANVAS, CANVAS / 2 + dy, radius), (0.73 * CANVAS, CANVAS / 2 - dy, radius)]
    if spec.count == 3:
        radius = rng.uniform(0.15, 0.17) * CANVAS
        return [(x * CANVAS, y * CANVAS, radius) for x, y in ((0.25, 0.68), (0.75, 0.68), (0.5, 0.28))]
    low, high = {"small": (0.13, 0.15), "": (0.225, 0.255), "large": (0.35, 0.39)}[spec.size]
    radius = rng.uniform(low, high) * CANVAS * (0.86 if spec.character else 1.0)
    shift = (0.31 if spec.size else 0.23) * CANVAS
    dx, dy = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1), "": (0, 0)}[spec.place]
    wobble = 0.025 * CANVAS
    x = CANVAS / 2 + rng.uniform(-wobble, wobble) + dx * shift
    y = CANVAS / 2 + rng.uniform(-wobble, wobble) + dy * shift
    return [(x, y, radius)]


def draw_figure(image: Image.Image, spec: Spec, centre: Point, radius: float, rng: random.Random) -> None:
    """One figure with its texture, outline, face and a character's extras."""
    rgb = spec.fill or jitter(rng, COLOURS[spec.colour])
    angle = rng.uniform(-0.12, 0.12)
    points = rotated(outline(spec.shape, radius), centre, angle)
    draw = ImageDraw.Draw(image)
    if spec.character == "sunny":
        _draw_rays(draw, centre, radius, angle, jitter(rng, COLOURS["orange"]))
    if spec.character == "robo":
        _draw_robot_parts(draw, centre, radius)
    if spec.texture:
        mask = Image.new("L", image.size, 0)
        ImageDraw.Draw(mask).polygon(points, fill=255)
        image.paste(_textured(spec.texture, rgb, rng), (0, 0), mask)
    else:
        draw.polygon(points, fill=rgb)
    if spec.outlined:
        stroke = _outline_colour(rgb, COLOURS[spec.ground])
        draw.line([*points, *points[:2]], fill=stroke, width=int(CANVAS * 0.036), joint="curve")
    if spec.face:
        _draw_face(draw, _face_place(spec.shape, centre, radius), spec.face, rgb)


def outline(shape: str, r: float) -> list[Point]:
    """The polygon of a shape around the origin, with a radius of about `r`."""
    if shape == "circle":
        return [_polar(r, i * math.tau / 48) for i in range(48)]
    if shape == "square":
        return [(x * 0.86 * r, y * 0.86 * r) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    if shape == "triangle":
        return [(0, -r), (0.95 * r, 0.75 * r), (-0.95 * r, 0.75 * r)]
    if shape == "diamond":
        return [(0, -1.12 * r), (0.72 * r, 0), (0, 1.12 * r), (-0.72 * r, 0)]
    if shape == "star":
        return [_polar((0.46 if i % 2 else 1.1) * r, i * math.pi / 5 - math.pi / 2) for i in range(10)]
    if shape == "heart":
        return [_heart(r, i * math.tau / 48) for i in range(48)]
    if shape == "moon":
        return _moon(r)
    if shape == "cross":
        w = 0.33 * r
        quarter = [(w, -r), (w, -w), (r, -w)]
        return [point for turn in range(4) for point in rotated(quarter, (0, 0), turn * math.pi / 2)]
    if shape == "ghost":
        head = [(x, y - 0.2 * r) for x, y in (_polar(0.8 * r, math.pi + i * math.pi / 24) for i in range(25))]
        return head + [(0.8 * r - 1.6 * r * i / 6, (0.74 if i % 2 else 1.0) * r) for i in range(7)]
    raise ValueError(f"no shape is called {shape!r}")


def rotated(points: Sequence[Point], centre: Point, angle: float) -> list[Point]:
    """Points turned around the origin and moved to `centre`."""
    c, s = math.cos(angle), math.sin(angle)
    return [(centre[0] + c * x - s * y, centre[1] + s * x + c * y) for x, y in points]


def jitter(rng: random.Random, rgb: Rgb, amount: int = 10) -> Rgb:
    """A colour near `rgb`."""
    red, green, blue = (max(0, min(255, channel + rng.randint(-amount, amount))) for channel in rgb)
    return red, green, blue


def sheet(images: Sequence[Image.Image], columns: int, labels: Sequence[str] = ()) -> Image.Image:
    """Pictures in a grid, with a line of text above each; for looking at."""
    width, height = images[0].size
    pad, head = 4, 12 if labels else 0
    rows = -(-len(images) // columns)
    out = Image.new("RGB", (columns * (width + pad) + pad, rows * (height + pad + head) + pad), (70, 70, 74))
    draw = ImageDraw.Draw(out)
    for i, image in enumerate(images):
        x, y = pad + i % columns * (width + pad), pad + i // columns * (height + pad + head)
        out.paste(image, (x, y + head))
        if labels:
            draw.text((x, y - 1), labels[i][: width // 6], fill=_LIGHT)
    return out


def _polar(radius: float, angle: float) -> Point:
    return radius * math.cos(angle), radius * math.sin(angle)


def _heart(r: float, t: float) -> Point:
    y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
    return 16 * math.sin(t) ** 3 * r / 16.5, (2 - y) * r / 16.5


def _moon(r: float) -> list[Point]:
    outer = [_polar(r, math.radians(50 + 260 * i / 32)) for i in range(33)]
    x, y = outer[-1]
    bite = math.hypot(0.05 * r, y)
    inner = [_polar(bite, math.radians(270 - 180 * i / 32)) for i in range(33)]
    return outer + [(x + 0.05 * r + 0.78 * dx, dy) for dx, dy in inner]


def _luminance(rgb: Rgb) -> float:
    return 0.3 * rgb[0] + 0.59 * rgb[1] + 0.11 * rgb[2]


def _pattern_colour(rgb: Rgb) -> Rgb:
    """A darker tone of a light colour, a lighter one of a dark colour."""
    if _luminance(rgb) > 150:
        red, green, blue = (int(c * 0.62) for c in rgb)
    else:
        red, green, blue = (int(c + (255 - c) * 0.62) for c in rgb)
    return red, green, blue


def _outline_colour(rgb: Rgb, ground: Rgb) -> Rgb:
    if _luminance(rgb) >= 60 and _luminance(ground) >= 60:
        return (15, 15, 15)
    return _LIGHT if _luminance(rgb) < 190 else (140, 140, 145)


def _textured(texture: str, rgb: Rgb, rng: random.Random) -> Image.Image:
    """A canvas full of stripes or dots."""
    image = Image.new("RGB", (CANVAS, CANVAS), rgb)
    draw = ImageDraw.Draw(image)
    other = _pattern_colour(rgb)
    if texture == "striped":
        step = CANVAS * 0.115
        start = rng.uniform(0, step) - CANVAS
        for i in range(int(3 * CANVAS / step)):
            x = start + i * step
            draw.line([(x, -2), (x + 0.5 * CANVAS, CANVAS + 2)], fill=other, width=int(step * 0.42))
        return image
    step = CANVAS * 0.125
    q, ox, oy = step * 0.27, rng.uniform(0, step), rng.uniform(0, step)
    for row in range(11):
        for column in range(11):
            x = ox + step * (column - 1 + 0.5 * (row % 2))
            y = oy + step * (0.87 * row - 1)
            draw.ellipse([x - q, y - q, x + q, y + q], fill=other)
    return image


def _face_place(shape: str, centre: Point, radius: float) -> tuple[float, float, float]:
    """Centre and radius of the face that fits into a shape."""
    x, y = centre
    drop = {"triangle": 0.12, "heart": -0.08, "ghost": -0.1}.get(shape, 0.0)
    scale = {"cross": 0.6, "moon": 0.62, "star": 0.62, "triangle": 0.62}.get(shape, 0.9)
    return x - (0.45 * radius if shape == "moon" else 0), y + drop * radius, radius * scale


def _draw_face(draw: ImageDraw.ImageDraw, place: tuple[float, float, float], face: str, rgb: Rgb) -> None:
    x, y, r = place
    stroke = _DARK if _luminance(rgb) > 95 else _LIGHT
    e = 0.13 * r
    for side in (-1, 1):
        eye_x, eye_y = x + side * 0.3 * r, y - 0.12 * r
        draw.ellipse([eye_x - e, eye_y - e * 1.25, eye_x + e, eye_y + e * 1.25], fill=stroke)
    m, width = 0.28 * r, max(2, int(0.12 * r))
    if face == "happy":
        draw.arc([x - m, y - 0.05 * r, x + m, y + 0.42 * r], 20, 160, fill=stroke, width=width)
    else:
        draw.arc([x - m, y + 0.24 * r, x + m, y + 0.66 * r], 200, 340, fill=stroke, width=width)


def _draw_rays(draw: ImageDraw.ImageDraw, centre: Point, radius: float, angle: float, rgb: Rgb) -> None:
    for i in range(12):
        ends = [_polar(reach * radius, i * math.tau / 12 + angle) for reach in (0.9, 1.4)]
        draw.line([(centre[0] + x, centre[1] + y) for x, y in ends], fill=rgb, width=int(0.14 * radius) + 1)


def _draw_robot_parts(draw: ImageDraw.ImageDraw, centre: Point, r: float) -> None:
    x, y = centre
    draw.line([(x, y - 0.8 * r), (x, y - 1.3 * r)], fill=(90, 90, 95), width=int(0.12 * r) + 1)
    q = 0.16 * r
    draw.ellipse([x - q, y - 1.45 * r - q, x + q, y - 1.45 * r + q], fill=(220, 40, 40))
    for side in (-1, 1):
        ear = x + side * 0.98 * r
        draw.rectangle([ear - 0.14 * r, y - 0.3 * r, ear + 0.14 * r, y + 0.3 * r], fill=(120, 120, 125))
