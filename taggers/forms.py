"""The form of every tool, for a page to draw: fields with their words, choices and bounds from the settings themselves.

Torch-free. `tool_forms` is what a page lists; `preview` what it shows of a prompt while choices are made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from engine.errors import EaselError, InvalidSetting
from engine.settings import checked
from engine.workspace import Workspace
from taggers.catalogue import CAPTIONERS, all_folders, installed, kind_of
from taggers.florence import REGION_TASKS
from taggers.joycaption import matrix
from taggers.settings import Captioner
from taggers.tool import CaptionerKind

_LIMITS = {"ge": "min", "gt": "above", "le": "max", "lt": "below", "max_length": "max_length"}
_NOT_IN_FORMS = ("kind", "model", "region")  # known from the choice of a model; drawn on a picture


def tool_forms(workspace: Workspace) -> list[dict[str, Any]]:
    """One entry a kind, taggers first. `models` are those on disk; one that can't be used has its `error`."""
    models: dict[str, list[dict[str, Any]]] = {kind.name: [] for kind in CAPTIONERS}
    unknown: list[dict[str, Any]] = []
    for folder in all_folders(workspace):
        try:
            models[kind_of(folder).name].append({"name": folder.name})
        except EaselError as error:
            unknown.append({"name": folder.name, "error": error.to_json()})
    return [_taggers(workspace), *(_form(kind, models[kind.name]) for kind in CAPTIONERS), *_unknown(unknown)]


def preview(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The prompt that these settings of a captioner make, before a picture's words are filled in.

    Raises UnknownSetting, InvalidSetting.
    """
    tool = tool_of(settings)
    return {"prompt": tool.asked(), "instruction": tool.instruction()}


def tool_of(settings: Mapping[str, Any]) -> Captioner:
    kinds = {kind.name: kind for kind in CAPTIONERS}
    name = settings.get("kind")
    if not isinstance(name, str) or name not in kinds:
        reason = f"known are {', '.join(kinds)}"
        raise InvalidSetting(where="tool", name="kind", value=name, reason=reason)
    return checked(kinds[name].settings, dict(settings), kinds[name].title)  # type: ignore[return-value]


def fields_of(kind: CaptionerKind) -> list[dict[str, Any]]:
    """The settings of a kind as fields, those that most people want first."""
    rows = [_field(name, field) for name, field in kind.settings.model_fields.items() if name not in _NOT_IN_FORMS]
    if kind.recognise is None:
        rows.insert(0, {**_field("model", kind.settings.model_fields["model"]), "default": ""})
    if kind.name == "joycaption":
        options = {
            "length": [{"value": one, "en": one, "zh": one} for one in matrix().all_lengths()],
            "options": [{"value": o.name, "en": o.title, "zh": o.zh} for o in matrix().options],
            "type": [{"value": t.name, "en": t.name, "zh": t.zh} for t in matrix().types],
        }
        rows = [{**row, "options": options[row["name"]]} if row["name"] in options else row for row in rows]
        rows = [{**row, "kind": "choice"} if row["name"] == "length" else row for row in rows]
    return sorted(rows, key=lambda row: not row["basic"])


def captioner_rows(workspace: Workspace) -> list[dict[str, Any]]:
    """What a list of taggers goes on with: each captioner on disk, and the endpoint, as
    {name, title, tool, fields, note}; one that can't be used has its `error`.

    A run of one is a job of kind "tag" with tools = [{**tool, **values of its fields}].
    """
    rows: list[dict[str, Any]] = []
    for form in tool_forms(workspace):
        note = {"en": form.get("note", ""), "zh": form.get("note_zh", "")}
        common = {
            "fields": form["fields"],
            "note": note,
            "thresholds": {},
            "region_tasks": form.get("region_tasks", []),
        }
        if form["kind"] == "endpoint":
            rows.append({"name": "endpoint", "title": form["title"], "tool": {"kind": "endpoint"}, **common})
        elif form["kind"] != "onnx":
            for one in form["models"]:
                tool = {"kind": form["kind"], "model": one["name"]}
                rows.append({**common, **one, "title": f"{one['name']} ({form['title']})", "tool": tool})
    return rows


def _form(kind: CaptionerKind, models: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "kind": kind.name,
        "title": kind.title,
        "licence": kind.licence,
        "sources": list(kind.sources),
        "note": kind.note,
        "note_zh": kind.note_zh,
        "folder": kind.recognise is not None,
        "models": models,
        "fields": fields_of(kind),
        "region_tasks": list(REGION_TASKS) if "region" in kind.settings.model_fields else [],
    }


def _taggers(workspace: Workspace) -> dict[str, Any]:
    models = []
    for one in installed(workspace):
        try:
            spec = one.spec()
            models.append(
                {
                    "name": one.name,
                    "title": spec.title,
                    "licence": spec.licence,
                    "thresholds": one.thresholds(),
                    "presets": {name: dict(values) for name, values in spec.presets.items()},
                }
            )
        except EaselError as error:
            models.append({"name": one.name, "error": error.to_json()})
    return {"kind": "onnx", "title": "ONNX", "folder": True, "models": models, "fields": []}


def _unknown(models: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"kind": "unknown", "title": "?", "folder": True, "models": models, "fields": []}] if models else []


def _field(name: str, field: FieldInfo) -> dict[str, Any]:
    extra = field.json_schema_extra
    words = extra if isinstance(extra, dict) else {}
    row: dict[str, Any] = {
        "name": name,
        "kind": _kind(name, field.annotation),
        "title": {"en": field.title or name, "zh": words.get("title_zh") or field.title or name},
        "help": {"en": field.description or "", "zh": words.get("help_zh") or field.description or ""},
        "basic": words.get("group") == "basic",
        "default": list(field.default) if isinstance(field.default, tuple) else field.default,
        "optional": False,
    }
    for part in field.metadata:
        row |= {ours: getattr(part, theirs) for theirs, ours in _LIMITS.items() if hasattr(part, theirs)}
    if row["kind"] == "choice":
        row["options"] = [{"value": one, "en": one, "zh": one} for one in get_args(field.annotation)]
    return row


def _kind(name: str, annotation: Any) -> str:
    """text, area (long text), integer, number, switch, choice (one of), choices (some of)."""
    simple = {bool: "switch", int: "integer", float: "number", str: "text"}
    if annotation in simple:
        return "area" if name in ("prompt", "system") else simple[annotation]
    return "choices" if get_origin(annotation) is tuple else "choice"
