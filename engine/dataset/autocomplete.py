"""Completing a tag while it is typed: the dataset's own tags first, then those of a list that the user supplies.

The list is a CSV as a1111-tagcomplete's users have it: tag, category, count, "aliases", without a header. A hundred and
forty thousand rows are searched in tens of milliseconds.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.dataset.captions import canonical
from engine.dataset.view import Count
from engine.errors import InputError

# Danbooru's numbers
_CATEGORIES = {"0": "general", "1": "artist", "3": "copyright", "4": "character", "5": "meta"}


class BadTagList(InputError):
    en = '{name} is not a tag list: {reason}. A line is: tag,category,count,"aliases".'
    zh = '{name} 不是标签列表：{reason_zh}。每行格式为：tag,category,count,"aliases"。'


@dataclass(frozen=True)
class ListedTag:
    """A tag of a list. `own`: the dataset uses it, in `count` pictures; else `count` is the list's."""

    name: str
    category: str
    count: int
    aliases: tuple[str, ...] = ()
    own: bool = False


@dataclass(frozen=True)
class Completion:
    """A tag to offer; `alias` is what was typed when it is another name of it."""

    tag: ListedTag
    alias: str = ""


def read_tag_list(path: Path) -> list[ListedTag]:
    """Raises BadTagList with the line that can't be read."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadTagList(name=path.name, reason="it is not UTF-8 text", reason_zh="不是 UTF-8 文本") from error
    found = []
    lines = csv.reader(io.StringIO(text.replace("\0", "")), strict=True)
    try:
        for number, row in enumerate(lines, start=1):
            if not row or (number == 1 and row[0].lower() in ("tag", "name")):
                continue
            if (tag := _listed(row)) is None:
                there = repr(",".join(row)[:60])
                raise BadTagList(
                    name=path.name,
                    reason=f"line {number} is {there}",
                    reason_zh=f"第 {number} 行为 {there}",
                )
            found.append(tag)
    except csv.Error as error:
        at = lines.line_num
        raise BadTagList(name=path.name, reason=f"line {at}: {error}", reason_zh=f"第 {at} 行：{error}") from error
    if not found:
        raise BadTagList(name=path.name, reason="it has no tags", reason_zh="其中没有标签")
    return found


def _listed(row: list[str]) -> ListedTag | None:
    """A row of a list; None where it is none. Lists of quality tags have a word or nothing for the count."""
    name, category, count, aliases = (*map(str.strip, row[:4]), *[""] * (4 - len(row)))
    told = re.fullmatch(r"-?[0-9]{1,15}", count)
    if not canonical(name) or len(row) < 3 or not (told or (len(row) > 3 and re.fullmatch(r"-?[0-9]{1,3}", category))):
        return None
    others = tuple(found for alias in aliases.split(",") if alias != "null" and (found := canonical(alias)))
    return ListedTag(canonical(name), _CATEGORIES.get(category, "general"), int(count) if told else 0, others)


def complete(typed: str, own: Iterable[Count], listed: Iterable[ListedTag] = (), limit: int = 20) -> list[Completion]:
    """Tags for what was typed: the dataset's own before others, beginnings before middles, frequent before rare."""
    wanted = canonical(typed).casefold()
    if not wanted:
        return []
    mine = [ListedTag(count.name, count.category, count.pictures, own=True) for count in own]
    known = {tag.name for tag in mine}
    ranked: list[tuple[tuple[int, int, int, str], Completion]] = []
    for tag in (*mine, *(tag for tag in listed if tag.name not in known)):
        place, alias = _place(wanted, tag)
        if place is not None:
            ranked.append(((place, not tag.own, -tag.count, tag.name), Completion(tag, alias)))
    ranked.sort(key=lambda row: row[0])
    return [completion for _, completion in ranked[:limit]]


def _place(wanted: str, tag: ListedTag) -> tuple[int | None, str]:
    """0 where the name begins so, 1 where an alias does, 2 where a word inside does; None where none does."""
    name = tag.name.casefold()
    if name.startswith(wanted):
        return 0, ""
    for alias in tag.aliases:
        if alias.casefold().startswith(wanted):
            return 1, alias
    return (2, "") if f"_{wanted}" in name or f"({wanted}" in name else (None, "")
