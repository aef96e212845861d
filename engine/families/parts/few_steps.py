"""Models that were distilled to a few steps: what a form starts with for them. No tensor tells them from their bases;
their files' names and titles do. Torch-free."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from engine.families.base import Defaults, Detected
from engine.families.parts.stored import json_metadata
from engine.weights.header import Header

MOST_STEPS = 16  # that a name may state: "4step", "8steps"


@dataclass(frozen=True)
class Distillation:
    """A way of distilling, the word in lower-case names that says so, and how its makers sample."""

    title: str
    word: str
    steps: int
    sampler_name: str = "euler"
    scheduler: str = "sgm_uniform"
    cfg: float = 1.0


# The first that fits: a merge may carry several words, and those of LCM and Lightning ask for a sampler of theirs.
DISTILLATIONS = (
    Distillation("LCM", r"(?<![a-z])lcm(?![a-z])", 6, "lcm", cfg=1.5),
    Distillation("DMD2", r"(?<![a-z])dmd2?(?![a-z])", 4, "lcm"),
    Distillation("Lightning", r"lightning", 4),
    Distillation("Hyper-SD", r"hyper[-_ ]?(?:sd|sdxl|xl|flux|\d)\w*", 8),
    Distillation("Turbo", r"turbo", 4, "euler_ancestral"),
    Distillation("schnell", r"schnell", 4, scheduler="simple"),
)
_SMALL = re.compile(r"^sd[-_ ]?(?:xl)?[-_ ]?turbo")  # Stability's own were made for 512 px


def few_steps(found: Detected, header: Header) -> Detected:
    """What a family says of a file, with defaults for few steps if it was distilled to them and does not state any of
    its own."""
    name = header.path.stem.lower()
    way = _way(name) or _way(header.metadata.get("modelspec.title", "").lower())
    if way is None or json_metadata(header, "easel.defaults"):
        return found
    stated = re.search(r"(?<!\d)(\d{1,2})[-_ ]?steps?(?![a-z])", name)
    steps = int(stated[1]) if stated and 0 < int(stated[1]) <= MOST_STEPS else way.steps
    defaults: Defaults = replace(found.defaults, steps=steps, cfg=way.cfg, scheduler=way.scheduler)
    if found.prediction != "flow":  # flows have no samplers of their own here: Euler's is what they are made for
        defaults = replace(defaults, sampler_name=way.sampler_name)
    if _SMALL.search(name):
        defaults = replace(defaults, width=512, height=512)
    return replace(found, defaults=defaults, distilled=way.title)


def _way(name: str) -> Distillation | None:
    return next((way for way in DISTILLATIONS if re.search(way.word, name)), None)
