"""What can be said of a caption without a model: it goes round in circles, it has empty phrases, it leaves out or
contradicts what the tags say. Numbers and lists; nothing is changed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from engine.dataset.captions import pretty
from engine.dataset.view import View

BANNED = (
    *("this image shows", "the image shows", "this image depicts", "the image depicts", "in this image"),
    *("in the image", "this picture shows", "the picture shows", "this photo shows", "this image is", "the image is"),
    *("the image features", "this image features", "appears to be", "seems to be", "it is unclear"),
    *("there is no text", "overall mood", "the overall", "you are looking at", "as an ai", "i cannot", "i can't"),
)
COLOURS = (
    *("black", "blonde", "blue", "brown", "green", "grey", "orange", "pink", "purple", "red", "silver", "white"),
    *("yellow", "aqua"),
)
_SAME = {"blond": "blonde", "gray": "grey", "golden": "blonde", "brunette": "brown", "violet": "purple"}
# of each row at most one is true of a picture
EXCLUSIVE = (
    ("indoors", "outdoors"),
    ("day", "night"),
    ("long hair", "short hair"),
    ("1girl", "2girls", "3girls", "no humans"),
    ("1boy", "2boys", "3boys", "no humans"),
    ("open eyes", "closed eyes"),
    ("open mouth", "closed mouth"),
    ("monochrome", "colorful"),
    ("day", "night"),
    ("standing", "sitting", "lying"),
)
_SPOKEN = {
    "1girl": ("a girl", "one girl", "a woman", "one woman", "a young woman"),
    "2girls": ("two girls", "two women", "2 girls"),
    "3girls": ("three girls", "three women", "3 girls"),
    "1boy": ("a boy", "one boy", "a man", "one man", "a young man"),
    "2boys": ("two boys", "two men", "2 boys"),
    "3boys": ("three boys", "three men", "3 boys"),
    "no humans": ("no humans", "no people", "no one"),
    "indoors": ("indoors", "indoor"),
    "outdoors": ("outdoors", "outdoor"),
    "day": ("daytime", "daylight", "sunny day"),
    "night": ("at night", "nighttime", "night sky"),
    "lying": ("lying", "laying"),
}
LOOP = 0.3  # of a caption's words in sequences of four that were there before
NEAR = 3  # words that may stand between those of a tag: "long, wavy, blonde hair" mentions long_hair


@dataclass(frozen=True)
class Prose:
    """One caption. `coverage` is the share of the sure tags that it mentions, 1 where there are none."""

    picture: int
    repeats: float
    unfinished: bool
    banned: tuple[str, ...]
    coverage: float
    missing: tuple[str, ...]
    contradictions: tuple[str, ...]

    @property
    def loops(self) -> bool:
        return self.repeats > LOOP


def check(view: View, sure: float = 0.7) -> list[Prose]:
    """Every caption against the tags of its picture that have at least the score `sure`.

    What was said of a text beside the same tags is remembered: after an edit only what it changed is looked at.
    """
    rows = zip(view.pictures(), view.captions(), view.names_over(sure), strict=True)
    return [Prose(picture.id, *_said(text, names)) for picture, text, names in rows if text]


def repeats(text: str, length: int = 4) -> float:
    """Share of the sequences of `length` words that were there before: a model in a loop comes near to 1."""
    words = _words(text)
    sequences = [tuple(words[i : i + length]) for i in range(len(words) - length + 1)]
    if not sequences:
        return 0.0
    return 1.0 - len(set(sequences)) / len(sequences)


@lru_cache(maxsize=200_000)
def _said(
    text: str, tags: tuple[str, ...]
) -> tuple[float, bool, tuple[str, ...], float, tuple[str, ...], tuple[str, ...]]:
    share, missing = coverage(text, tags)
    return repeats(text), unfinished(text), phrases(text), share, missing, contradictions(text, tags)


def unfinished(text: str) -> bool:
    """It ends in the middle of a sentence. A list of tags never ends with one and is none."""
    return bool(re.search(r"[.!?][\"')\]]*\s", text)) and not re.search(r"[.!?…。！？][\"'”’)\]]*$", text.strip())


def phrases(text: str, banned: Sequence[str] = BANNED) -> tuple[str, ...]:
    """Those of the banned phrases that are in it, whatever the case."""
    low = " ".join(text.lower().replace("’", "'").split())
    return tuple(one for one in banned if one in low and re.search(rf"(?<!\w){re.escape(one)}(?!\w)", low))


def coverage(text: str, tags: Iterable[str]) -> tuple[float, tuple[str, ...]]:
    """(share of the tags that are mentioned, those that are not)."""
    names = list(dict.fromkeys(tags))
    words = _words(text)
    missing = tuple(name for name in names if not mentions(words, name))
    return (1.0 - len(missing) / len(names) if names else 1.0), missing


def mentions(words: Sequence[str], tag: str) -> bool:
    """Whether a caption's words name a tag: all its words in order, with few others between; plurals count."""
    spoken = _SPOKEN.get(pretty(tag))
    if spoken is not None and any(f" {_plain(one)} " in f" {' '.join(words)} " for one in spoken):
        return True
    wanted = _named(tag)
    if not wanted or wanted[0] not in words:
        return False
    return any(word == wanted[0] and _follows(words, i + 1, wanted[1:]) for i, word in enumerate(words))


def contradictions(text: str, tags: Iterable[str]) -> tuple[str, ...]:
    """What the caption says that the tags exclude, as "blonde hair, but black hair"."""
    names = [pretty(tag) for tag in tags]
    words = _words(text)
    found = []
    for thing in ("hair", "eyes"):
        tagged = {_colour(name.split()[0]) for name in names if name.endswith(f" {thing}")} & set(COLOURS)
        said = _said_of(words, _singular(thing))
        if tagged and said and not tagged & said:
            found.append(f"{'/'.join(sorted(said))} {thing}, but {'/'.join(sorted(tagged))} {thing}")
    for row in dict.fromkeys(EXCLUSIVE):
        tagged = [name for name in row if name in names]
        said = [name for name in row if mentions(words, name)]
        if len(tagged) == 1 and said and tagged[0] not in said:
            found.append(f"{said[0]}, but {tagged[0]}")
    return tuple(found)


def most_used(checks: Iterable[Prose]) -> list[tuple[str, int]]:
    """Banned phrases with the number of captions that have them, most first."""
    return Counter(phrase for one in checks for phrase in one.banned).most_common()


def _said_of(words: Sequence[str], thing: str) -> set[str]:
    """The colours shortly before a word, back to the last other thing that has colours."""
    found: set[str] = set()
    for place in (i for i, word in enumerate(words) if word == thing):
        for word in reversed(words[max(0, place - NEAR - 1) : place]):
            if word in ("hair", "eye"):
                break
            if word in COLOURS:
                found.add(word)
    return found


def _follows(words: Sequence[str], start: int, wanted: Sequence[str]) -> bool:
    for word in wanted:
        near = words[start : start + NEAR + 1]
        if word not in near:
            return False
        start += near.index(word) + 1
    return True


@lru_cache(maxsize=50_000)
def _named(tag: str) -> tuple[str, ...]:
    return _words(pretty(tag))


@lru_cache(maxsize=64)  # the same caption is asked several things
def _words(text: str) -> tuple[str, ...]:
    return tuple(_colour(_singular(word)) for word in re.findall(r"[^\W_]+", text.lower()))


@lru_cache(maxsize=256)
def _plain(text: str) -> str:
    return " ".join(_words(text))


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _colour(word: str) -> str:
    return _SAME.get(word, word)
