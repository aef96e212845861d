"""Captions as a view: rules that turn a picture's tags and caption text into the line a trainer reads.

Tags come in with their canonical names (booru underscores) and go out as the rules say. The trigger word is a rule of
the dataset and never stored among the tags. It knows no store and no file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

# the 19 of SmilingWolf's taggers whose underscores are eyes, mouths or walls
KAOMOJI = frozenset(
    (
        *("0_0", "(o)_(o)", "+_+", "+_-", "._.", "<o>_<o>", "<|>_<|>", "=_=", ">_<", "3_3"),
        *("6_9", ">_o", "@_@", "^_^", "o_o", "u_u", "x_x", "|_|", "||_||"),
    )
)
CATEGORIES = ("general", "character", "copyright", "artist", "style", "meta", "quality", "model", "year", "rating")


@dataclass(frozen=True)
class Tag:
    """A tag that counts for a picture. `position` is its place among the tags as they were read or written."""

    name: str
    category: str = "general"
    score: float = 1.0
    position: int = 0


class CaptionRules(BaseModel):
    """How tags and caption become one text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trigger_word: str = Field("", description="Word that comes first in every caption and calls the concept later.")
    always_first: tuple[str, ...] = Field((), description="Tags that come right after the trigger word when present.")
    categories: tuple[str, ...] = Field(
        ("general", "character", "copyright", "artist"), description="Categories that are used, in this order."
    )
    order: Literal["score", "alphabet", "as read"] = Field("score", description="Order of the tags inside a category.")
    blacklist: tuple[str, ...] = Field((), description="Tags left out; * and ? stand for any letters.")
    replacements: dict[str, str] = Field({}, description="Tag to write instead of a tag; empty leaves it out.")
    implications: dict[str, tuple[str, ...]] = Field({}, description="What a tag implies.")
    implied: Literal["keep", "drop", "add"] = Field("keep", description="Drop implied tags, add them, or neither.")
    underscores: Literal["space", "keep"] = Field("space", description="Underscores become spaces, except in kaomoji.")
    escape: bool = Field(False, description="Escape ( ) and \\ for A1111-style prompts; trainers do not want that.")
    category_prefix: dict[str, str] = Field({}, description="Text before each tag of a category.")
    separator: str = Field(", ", description="Text between tags.")
    max_tags: int = Field(0, ge=0, description="At most this many tags after the trigger word; 0 is no limit.")
    parts: Literal["tags", "caption", "tags, caption", "caption, tags"] = Field(
        "tags", description="What a caption is made of: the tags, the caption text, or both."
    )


def canonical(tag: str) -> str:
    """A tag as typed or read from a file, as the store names it: no escapes, underscores for spaces."""
    return re.sub(r"\s+", "_", re.sub(r"\\([\\()])", r"\1", tag).strip())


def pretty(name: str) -> str:
    """A canonical name for people: spaces for underscores, except where they are part of a face."""
    return name if name in KAOMOJI else name.replace("_", " ")


def escape(text: str) -> str:
    return re.sub(r"([\\()])", r"\\\1", text)


def matches(pattern: str, name: str) -> bool:
    """Whether a name fits a pattern with * and ?. Brackets are letters: tags have them."""
    if "*" not in pattern and "?" not in pattern:
        return pattern == name
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), name) is not None


def split_tags(text: str) -> list[str]:
    """Tags of a comma-separated text, canonical, each once, in order. Lines count as commas."""
    return list(dict.fromkeys(filter(None, (canonical(part) for part in re.split(r"[,\n\r]", text)))))


def caption(rules: CaptionRules, tags: Iterable[Tag], text: str = "") -> str:
    """The caption of one picture."""
    listed = tag_list(rules, tags)
    prose = " ".join(text.split())
    first = [rules.trigger_word] if rules.trigger_word else []
    if first and prose and rules.parts != "tags" and _mentions(prose, rules.trigger_word):
        first = []
    pieces = {
        "tags": listed,
        "caption": [prose] if prose else [],
        "tags, caption": [*listed, *([prose] if prose else [])],
        "caption, tags": [*([prose] if prose else []), *listed],
    }[rules.parts]
    return rules.separator.join([*first, *pieces])


def tag_list(rules: CaptionRules, tags: Iterable[Tag]) -> list[str]:
    """The tags as they are written, without the trigger word; each text once."""
    kept = [tag for tag in _replaced(rules, _with_implications(rules, list(tags))) if not _barred(rules, tag)]
    first = {canonical(name): place for place, name in enumerate(rules.always_first)}
    place = {category: i for i, category in enumerate(rules.categories)}
    kept = [tag for tag in kept if tag.category in place or tag.name in first]
    kept.sort(key=lambda tag: (first.get(tag.name, len(first)), place.get(tag.category, 0), *_rank(rules, tag)))
    words = dict.fromkeys(_written(rules, tag) for tag in kept)
    words.pop(rules.trigger_word, None)
    return list(words)[: rules.max_tags or None]


def _rank(rules: CaptionRules, tag: Tag) -> tuple[float | str, ...]:
    if rules.order == "alphabet":
        return (tag.name,)
    if rules.order == "as read":
        return (tag.position,)
    return (-tag.score, tag.position)


def _written(rules: CaptionRules, tag: Tag) -> str:
    word = pretty(tag.name) if rules.underscores == "space" else tag.name
    word = rules.category_prefix.get(tag.category, "") + word
    return escape(word) if rules.escape else word


def _barred(rules: CaptionRules, tag: Tag) -> bool:
    return any(matches(canonical(pattern), tag.name) for pattern in rules.blacklist)


def _replaced(rules: CaptionRules, tags: Sequence[Tag]) -> list[Tag]:
    table = {canonical(old): canonical(new) for old, new in rules.replacements.items()}
    renamed = [Tag(table.get(t.name, t.name), t.category, t.score, t.position) for t in tags]
    return [tag for tag in renamed if tag.name]


def _with_implications(rules: CaptionRules, tags: list[Tag]) -> list[Tag]:
    if rules.implied == "keep" or not rules.implications:
        return tags
    table = {canonical(a): [canonical(b) for b in many] for a, many in rules.implications.items()}
    implied = {tag.name: _closure(tag.name, table) for tag in tags}
    if rules.implied == "drop":
        unwanted = {b for a, many in implied.items() for b in many if a not in implied.get(b, ())}
        return [tag for tag in tags if tag.name not in unwanted]
    have = {tag.name for tag in tags}
    extra = [Tag(b, t.category, t.score, t.position) for t in tags for b in implied[t.name] if b not in have]
    return [*tags, *{tag.name: tag for tag in reversed(extra)}.values()]


def _closure(name: str, table: dict[str, list[str]]) -> list[str]:
    """Everything that `name` implies, directly or by way of others."""
    found: list[str] = []
    waiting = [name]
    while waiting:
        for implied in table.get(waiting.pop(), ()):
            if implied not in found and implied != name:
                found.append(implied)
                waiting.append(implied)
    return found


def _mentions(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None
