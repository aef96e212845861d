"""Edits of many pictures at once: worked out as a plan that shows every change, applied as one event to undo.

A plan is made anew from the same edit when it is applied, and refused when it would no longer do what was shown.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.dataset.captions import canonical, matches, pretty
from engine.dataset.records import Event, Picture
from engine.dataset.store import Store
from engine.dataset.view import View
from engine.errors import InputError
from engine.patterns import BadPattern, Expression, PatternTooSlow, ResultTooLong, TextTooLong, expression


class BadEdit(InputError):
    en = "The edit can't be made: {reason}."
    zh = "无法执行此编辑：{reason_zh}。"


class PlanOutdated(InputError):
    en = "The dataset changed since the preview: {count} pictures would change now. Look at the preview again."
    zh = "预览之后数据集已有变化：现在将更改 {count} 张图片。请重新查看预览。"


class BulkEdit(BaseModel):
    """One edit of the tags or caption texts of some pictures.

    add, remove: `tags`, to or from every picture; remove takes patterns with * and ?.
    replace: the tags fitting the pattern `find` become `tags`.
    regex: `find` as a regular expression in every tag as it is shown, `replace` its replacement; an empty tag goes.
    find in captions, regex in captions: in the caption text.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    how: Literal["add", "remove", "replace", "regex", "find in captions", "regex in captions"]
    tags: tuple[str, ...] = ()
    find: str = ""
    replace: str = ""
    ignore_case: bool = Field(False, description="Letters match in upper and lower case (regex and captions).")


@dataclass(frozen=True)
class Change:
    """What one picture gains and loses."""

    picture: int
    name: str
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    before: str | None = None  # caption text
    after: str | None = None


@dataclass(frozen=True)
class Plan:
    """Every change of an edit. `digest` names exactly these changes."""

    title: str
    changes: tuple[Change, ...] = field(default=())

    @property
    def digest(self) -> str:
        rows = [(c.picture, c.added, c.removed, c.before, c.after) for c in self.changes]
        return hashlib.blake2b(json.dumps(rows).encode(), digest_size=8).hexdigest()


def plan(view: View, edit: BulkEdit, pictures: Iterable[Picture]) -> Plan:
    """What `edit` would do to these pictures. Nothing is written. Raises BadEdit."""
    if edit.how.endswith("captions"):
        change = _captions(view, edit)
    else:
        change = _added(view, edit) if edit.how == "add" else _renamed(view, edit)
    found = (change(picture) for picture in pictures)
    return Plan(_title(edit), tuple(one for one in found if one is not None))


def apply(view: View, edit: BulkEdit, pictures: Iterable[Picture], expected: str | None = None) -> Event | None:
    """Make the changes as one event. `expected`: the digest of the plan that was shown; raises PlanOutdated."""
    made = plan(view, edit, pictures)
    if expected is not None and made.digest != expected:
        raise PlanOutdated(count=len(made.changes))
    return write(view.store, made)


def write(store: Store, made: Plan) -> Event | None:
    """A plan into the store."""
    texts = {c.picture: c.after for c in made.changes if c.after is not None}
    if texts:
        return store.write_captions(texts, made.title)
    wanted = [(c.picture, name, -1) for c in made.changes for name in c.removed]
    wanted += [(c.picture, name, 1) for c in made.changes for name in c.added]
    return store.decide(wanted, made.title)  # type: ignore[arg-type]


def retag(view: View, picture: Picture, names: Iterable[str]) -> Plan:
    """The plan that leaves a picture with exactly these tags, as somebody typed them. Ratings are not touched."""
    wanted = [name for name in dict.fromkeys(map(canonical, names)) if name]
    have = [tag.name for tag in view.tags(picture.id) if tag.category != "rating"]
    change = _change(picture, have, wanted)
    return Plan(f"… {picture.name}", (change,) if change else ())


def _added(view: View, edit: BulkEdit) -> Callable[[Picture], Change | None]:
    new = _named(edit)
    place = {picture.id: i for i, picture in enumerate(view.pictures())}
    has = [view.mask(name) for name in new]

    def change(picture: Picture) -> Change | None:
        missing = tuple(name for name, mask in zip(new, has, strict=True) if not mask[place[picture.id]])
        return Change(picture.id, picture.name, added=missing) if missing else None

    return change


def _renamed(view: View, edit: BulkEdit) -> Callable[[Picture], Change | None]:
    if edit.how != "remove" and not edit.find.strip():
        raise BadEdit(reason="there is nothing to find", reason_zh="没有要查找的内容")
    renamed = _renamer(edit, _named(edit) if edit.how != "regex" and (edit.tags or edit.how == "remove") else [])
    touched = {name: new for name in view.names() if (new := renamed(name)) != [name]}
    hit = view.hits(lambda name, _: name in touched) > 0
    place = {picture.id: i for i, picture in enumerate(view.pictures())}

    def change(picture: Picture) -> Change | None:
        if not hit[place[picture.id]]:
            return None
        have = [tag.name for tag in view.tags(picture.id)]
        return _change(picture, have, [name for old in have for name in touched.get(old, [old])])

    return change


def _named(edit: BulkEdit) -> list[str]:
    found = [name for name in dict.fromkeys(map(canonical, edit.tags)) if name]
    if not found:
        raise BadEdit(reason="no tag is named", reason_zh="没有指定标签")
    return found


def _renamer(edit: BulkEdit, new: list[str]) -> Callable[[str], list[str]]:
    """What one tag becomes: itself, others, or nothing."""
    if edit.how == "remove":
        return lambda old: [] if any(matches(pattern, old) for pattern in new) else [old]
    if edit.how == "replace":
        pattern = canonical(edit.find)
        return lambda old: new if matches(pattern, old) else [old]
    if edit.how == "regex":
        sought = _expression(edit.find, edit)

        def by_regex(old: str) -> list[str]:
            shown = pretty(old)
            found = _substituted(sought, edit.replace, shown)
            return [old] if found == shown else [name for name in [canonical(found)] if name]

        return by_regex
    return lambda old: [old]


def _captions(view: View, edit: BulkEdit) -> Callable[[Picture], Change | None]:
    if not edit.find:
        raise BadEdit(reason="there is nothing to find", reason_zh="没有要查找的内容")
    literal = edit.how == "find in captions"
    sought = _expression(re.escape(edit.find) if literal else edit.find, edit)
    replacement = edit.replace.replace("\\", r"\\") if literal else edit.replace
    place = {picture.id: i for i, picture in enumerate(view.pictures())}
    texts = view.captions()

    def change(picture: Picture) -> Change | None:
        before = texts[place[picture.id]] if picture.id in place else ""
        after = _substituted(sought, replacement, before)
        return Change(picture.id, picture.name, before=before, after=after) if before != after else None

    return change


def _change(picture: Picture, have: list[str], wanted: list[str]) -> Change | None:
    added = tuple(name for name in dict.fromkeys(wanted) if name not in have)
    removed = tuple(name for name in dict.fromkeys(have) if name not in wanted)
    return Change(picture.id, picture.name, added, removed) if added or removed else None


def _expression(pattern: str, edit: BulkEdit) -> Expression:
    """It has half a second for each text: the page waits, and nothing else stops a search."""
    try:
        return replace(expression(pattern, ignore_case=edit.ignore_case), seconds=0.5)
    except BadPattern as error:
        raise BadEdit(reason=_said(error.text("en")), reason_zh=_said(error.text("zh"))) from error


def _substituted(pattern: Expression, replacement: str, text: str) -> str:
    try:
        return pattern.replaced(text, replacement)
    except (BadPattern, PatternTooSlow, TextTooLong, ResultTooLong) as error:
        raise BadEdit(reason=_said(error.text("en")), reason_zh=_said(error.text("zh"))) from error


def _said(text: str) -> str:
    """A sentence as a part of another."""
    return text.removesuffix(".").removesuffix("。")


def _title(edit: BulkEdit) -> str:
    """Signs and names: it is kept with the dataset and read in either language."""
    tags = ", ".join(map(pretty, edit.tags))
    if edit.how in ("add", "remove"):
        return f"{'+' if edit.how == 'add' else '−'} {tags}"
    return f"{edit.find} → {tags or edit.replace or '∅'}"
