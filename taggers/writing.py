"""What captioners answer, as the store keeps it: under whose name, and lists of words as tags. Torch-free."""

from __future__ import annotations

import re

from engine.dataset.arrays import TAGGER
from engine.dataset.captions import canonical
from engine.dataset.records import GENERAL, Policy, Reading
from taggers.reader import Origin
from taggers.tool import CaptionTool

CAPTIONER = "captioner:"
_CATEGORY = re.compile(r"^(artist|copyright|character|species|meta|lore|rating|general):\s*", re.I)


def captioner_origin(name: str, version: str, tool: CaptionTool, gives_tags: bool = False) -> Origin:
    """A tool whose answer is a list of tags votes as taggers do; one that writes prose does not."""
    votes = gives_tags or tool.write == "tags"
    return Origin(f"{TAGGER if votes else CAPTIONER}{name}", version, tool.identity(), Policy())


def tags_in(text: str) -> tuple[str, ...]:
    """The tags of a comma-separated answer, canonical, each once; "artist:", "character:" and such before them stay."""
    pieces = (piece.strip().strip(".").strip() for piece in re.split(r"[,\n]", text))
    return tuple(dict.fromkeys(canonical(piece) for piece in pieces if piece))


def reading_of(tags: tuple[str, ...]) -> Reading:
    """Tags of a captioner as a reading: no scores, so each has 1. A category before a tag is its category."""
    rows: dict[str, tuple[str, str, float]] = {}
    for tag in tags:
        found = _CATEGORY.match(tag)
        category = found[1].lower() if found else GENERAL
        name = tag[tag.index(":") + 1 :].strip("_ ") if found else tag
        if category == "rating":
            name = f"rating:{name}"
        if category in ("species", "lore"):
            category = GENERAL
        if name:
            rows.setdefault(name, (name, category, 1.0))
    return Reading(list(rows.values()))
