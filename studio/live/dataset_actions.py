"""What people do to a dataset: one function an action, each one call of engine.dataset and one entry of its undo list.

Titles of edits are signs and names, not sentences: they are kept with the dataset and shown in either language.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from engine.dataset import bulk
from engine.dataset.arrays import TAGGER
from engine.dataset.captions import CaptionRules, canonical, pretty, split_tags
from engine.dataset.export import export_sidecars, import_sidecars, set_rules
from engine.dataset.library import Dataset
from engine.dataset.query import matching
from engine.dataset.records import Source
from engine.dataset.review import accept_suggestions, suggestions
from engine.dataset.view import View
from engine.errors import InputError, NotFound
from engine.settings import checked
from engine.workspace import Workspace
from studio.live import dataset_copies, dataset_drawn
from studio.live.dataset_drawn import report_json
from taggers.catalogue import tagger

log = logging.getLogger(__name__)

SHOWN_CHANGES = 200  # of a bulk edit's preview
MERGES = ("union", "intersection", "vote")
SIGNS = {1: "+", 0: "·", -1: "−"}

Action = Callable[[Workspace, Dataset, View, dict[str, Any]], dict[str, Any]]


class UnknownEdit(InputError):
    en = "A dataset can't be asked to '{action}'. Known: {known}."
    zh = "数据集不支持操作“{action}”。已知：{known}。"


class BadRequest(InputError):
    en = "What was sent for '{action}' can't be used ({reason})."
    zh = "为“{action}”发送的内容无法使用（{reason}）。"


class NoTag(InputError):
    en = "Write a tag first."
    zh = "请先填写标签。"


class BadThreshold(InputError):
    en = "The threshold '{value}' can't be used. It is a number from 0 to 1."
    zh = "不能使用阈值“{value}”。请填写 0 到 1 之间的数字。"


class UnknownMerge(InputError):
    en = "Taggers can't be merged by '{how}'. Known: {known}."
    zh = "无法以“{how}”方式合并打标结果。已知：{known}。"


class BadWeight(InputError):
    en = "The weight '{value}' can't be used. It is a number from 0 to 100."
    zh = "不能使用权重“{value}”。请填写 0 到 100 之间的数字。"


def act(name: str, workspace: Workspace, dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    if name not in ACTIONS:
        raise UnknownEdit(action=name[:40], known=", ".join(ACTIONS))
    try:
        return ACTIONS[name](workspace, dataset, view, body)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        log.warning("%s was sent what it can't use", name, exc_info=True)
        raise BadRequest(action=name, reason=f"{type(error).__name__}: {error}"[:200]) from error


def threshold(value: Any) -> float:
    try:
        number = float(str(value).strip().replace(",", "."))
    except ValueError:
        number = -1.0
    if not 0.0 <= number <= 1.0:
        raise BadThreshold(value=value)
    return number


def _decide(workspace: Workspace, dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    text, state = str(body.get("tag", "")), body.get("state")
    tags = _typed(view, text)
    if not tags or state not in (-1, 0, 1):
        raise NoTag()
    rows = [(picture, canonical(tag), state) for picture in _ids(body) for tag in tags]
    title = f"{SIGNS[state]} {', '.join(map(pretty, tags))}"
    return {"changed": dataset.store.decide(rows, title) is not None}  # type: ignore[arg-type]


def _caption(workspace: Workspace, dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    picture = dataset.store.picture(int(body["picture"]))
    text = str(body.get("text", "")).strip()
    said = text if len(text) <= 40 else text[:39] + "…"
    title = f"“{said}” {picture.name}"
    return {"changed": dataset.store.write_captions({picture.id: text}, title) is not None}


def _bulk(workspace: Workspace, dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    """An edit of many pictures: shown with `apply` false, made with `apply` true and the digest of what was shown."""
    how, find, new = (str(body.get(name) or "") for name in ("action", "find", "replace"))
    tags = {"add": find, "remove": find, "replace": new}.get(how, "")
    edit: dict[str, Any] = {"how": how, "tags": _typed(view, tags)}
    edit |= {"find": find} if how not in ("add", "remove") else {}
    edit |= {"replace": new} if how in ("regex", "find in captions", "regex in captions") else {}
    edit |= {"ignore_case": True} if body.get("ignore_case") else {}
    wanted = checked(bulk.BulkEdit, edit, "bulk")
    chosen, mask = set(_ids(body)), matching(view, str(body.get("filter") or ""))
    pictures = [p for p, kept in zip(view.pictures(), mask, strict=True) if kept and (not chosen or p.id in chosen)]
    if body.get("apply"):
        return {"changed": bulk.apply(view, wanted, pictures, body.get("expected")) is not None}
    plan, start = bulk.plan(view, wanted, pictures), max(0, int(body.get("from") or 0))
    rows = [
        {
            "name": change.name,
            "added": [pretty(tag) for tag in change.added],
            "removed": [pretty(tag) for tag in change.removed],
            "before": change.before,
            "after": change.after,
        }
        for change in plan.changes[start : start + SHOWN_CHANGES]
    ]
    return {"total": len(plan.changes), "digest": plan.digest, "changes": rows}


def _undo(workspace: Workspace, dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    event = dataset.store.undo()
    return {"event": event.title if event else ""}


def _redo(workspace: Workspace, dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    event = dataset.store.redo()
    return {"event": event.title if event else ""}


def _rules(workspace: Workspace, dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    set_rules(dataset, checked(CaptionRules, body, "caption rules"), "CaptionRules")
    return {}


def _thresholds(workspace: Workspace, dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    """Where a tagger's scores begin to count. Nothing is read again; `keep` makes them the tagger's own from now on.

    `per_tag` replaces all thresholds of single tags where it is sent.
    """
    source = _source(view, body.get("source"))
    values = {str(k): threshold(v) for k, v in dict(body.get("thresholds") or {}).items() if str(v).strip()}
    mcut = tuple(str(category) for category in body.get("mcut") or ())
    moved = {**source.policy.thresholds, **values}
    policy = replace(source.policy, thresholds=moved, mcut=mcut, enabled=body.get("enabled") is not False)
    if (per_tag := body.get("per_tag")) is not None:
        policy = replace(policy, per_tag={canonical(str(k)): threshold(v) for k, v in dict(per_tag).items()})
    name = source.tool.removeprefix(TAGGER)
    dataset.store.set_policy(source.id, policy, f"{name} {', '.join(f'{k} {v:g}' for k, v in values.items())}".strip())
    if body.get("keep"):
        tagger(workspace, name).keep(moved, mcut)
    return {}


def _suggestions(workspace: Workspace, dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    """Take over thresholds that fit what was decided, for the tags that were chosen among them."""
    source, wanted = _source(view, body.get("source")), {str(name) for name in body.get("names") or ()}
    chosen = [suggestion for suggestion in suggestions(view, source.id) if suggestion.name in wanted]
    return {"changed": accept_suggestions(view, source.id, chosen) is not None, "moved": len(chosen)}


def _merge(workspace: Workspace, dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    """How the tags of several taggers become one list: `how`, the `share` of a vote, and each source's part in it."""
    how = body.get("how")
    if how not in MERGES:
        raise UnknownMerge(how=str(how)[:40], known=", ".join(MERGES))
    merge: dict[str, Any] = {"how": how} | ({"share": threshold(body.get("share", 0.5))} if how == "vote" else {})
    policies = {}
    for id, part in dict(body.get("sources") or {}).items():
        source = _source(view, int(id))
        policies[source.id] = replace(
            source.policy, weight=_weight(part["weight"]), subtracts=part["subtracts"] is True
        )
    return {"changed": dataset.store.set_merge(merge, policies, "Merge") is not None}


def _weight(value: Any) -> float:
    try:
        number = float(str(value).strip().replace(",", "."))
    except ValueError:
        number = -1.0
    if not 0.0 <= number <= 100.0:
        raise BadWeight(value=value)
    return number


def _source(view: View, id: Any) -> Source:
    source = next((s for s in view.sources() if s.id == id), None)
    if source is None:
        raise NotFound(
            what="source",
            what_zh="来源",
            name=str(id),
            remedy="It has read none of these pictures.",
            remedy_zh="它没有识别过这些图片。",
        )
    return source


def _remove(workspace: Workspace, dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    ids = _ids(body)
    return {"changed": dataset.store.remove_pictures(ids, f"− {len(ids)} ▢") is not None}


def _export(workspace: Workspace, dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    suffix = ".caption" if body.get("suffix") == ".caption" else ".txt"
    return report_json(export_sidecars(dataset, view, suffix=suffix, overwrite=bool(body.get("overwrite"))))


def _import(workspace: Workspace, dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    """The caption files that lie beside the pictures, as tags or as caption texts."""
    return report_json(
        import_sidecars(dataset, view, read_as="caption" if body.get("read_as") == "caption" else "tags")
    )


ACTIONS: dict[str, Action] = {
    "decide": _decide,
    "caption": _caption,
    "bulk": _bulk,
    "undo": _undo,
    "redo": _redo,
    "travel": dataset_drawn.travel,
    "rules": _rules,
    "thresholds": _thresholds,
    "suggestions": _suggestions,
    "merge": _merge,
    "crop": dataset_drawn.crop,
    "mask": dataset_drawn.mask,
    "masks": dataset_drawn.masks_of_regions,
    "remove_regions": dataset_drawn.remove,
    "write_masks": dataset_drawn.write_masks,
    "read_masks": dataset_drawn.read_masks,
    "restore": dataset_drawn.restore,
    "restore_all": dataset_drawn.restore_all,
    "vote": dataset_drawn.vote,
    "better": dataset_copies.better,
    "alternates": dataset_copies.alternates,
    "remove": _remove,
    "export": _export,
    "import": _import,
}


def _typed(view: View, text: str) -> list[str]:
    """Tags as somebody typed them: one that is known may have a comma in it."""
    return [canonical(text)] if view.category(canonical(text)) is not None else split_tags(text)


def _ids(body: dict[str, Any]) -> list[int]:
    return [int(i) for i in body.get("pictures") or ()]
