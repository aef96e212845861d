"""What Florence-2 answers to tasks about places, as places: words followed by coordinates in thousandths.

cat<loc_1><loc_2><loc_3><loc_4><loc_5>...dog<loc_..>   boxes: any number of fours behind a label
text<loc_1>...<loc_8>                                  a quad of eight behind a text
label<loc_1>...<loc_n><sep><loc_1>...                  outlines; <poly> and </poly> may stand around them
"""

from __future__ import annotations

import re

from engine.dataset.regions import Region, Shape
from taggers.florence import Gives

BINS = 1000
_PLACED = re.compile(r"([^<]*)((?:<loc_\d+>|<sep>|<poly>|</poly>)+)")
_NUMBER = re.compile(r"<loc_(\d+)>")
_MARKS = re.compile(r"</?s>|<pad>|<ground>|<obj>|</?od>|</?box>|</?bbox>|<and>")


def regions_in(text: str, gives: Gives) -> list[Region]:
    """The places of an answer, tokens and all. Coordinates that make no whole shape are left out."""
    found: list[Region] = []
    for label, places in _PLACED.findall(_MARKS.sub("", text)):
        name = label.strip().strip(",.;").strip()
        if gives == "polygons" or (gives == "boxes or polygons" and "<poly>" in text):
            found += [_region(name, "polygon", part) for part in _outlines(places)]
        elif gives == "quads":
            found += [_region(name, "quad", part) for part in _in_parts(places, 8)]
        else:
            found += [_region(name, "box", part) for part in _in_parts(places, 4)]
    return found


def _outlines(places: str) -> list[list[int]]:
    parts = [[int(n) for n in _NUMBER.findall(part)] for part in re.split(r"<sep>|</?poly>", places)]
    even = [part[: len(part) // 2 * 2] for part in parts]
    return [part for part in even if len(part) >= 6]


def _in_parts(places: str, size: int) -> list[list[int]]:
    numbers = [int(n) for n in _NUMBER.findall(places)]
    return [numbers[i : i + size] for i in range(0, len(numbers) - size + 1, size)]


def _region(label: str, shape: Shape, bins: list[int]) -> Region:
    shares = [(min(BINS - 1, number) + 0.5) / BINS for number in bins]
    if shape == "box":  # corners in any order
        x1, y1, x2, y2 = shares
        shares = [min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]
    return Region(label, shape, tuple(round(share, 4) for share in shares))
