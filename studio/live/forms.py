"""Forms for the page's own parts: fields of a pydantic settings model as JSON, drawn by tabs/static/form.js.

Type, default, range and words in both languages come from the model, where each setting is declared once. It knows no
particular model; a field of a type that it can't draw is a mistake of ours and fails here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

LONG = 200  # letters from which on a text gets several lines


def form_of(model: type[BaseModel], *, without: Collection[str] = ()) -> list[dict[str, Any]]:
    """One dictionary a field: name, kind, title and help in both languages, default, limits, options.

    Kinds: text, area, integer, number, switch, choice, choices (several of a few), lines (texts), pairs (text to text),
    lists (text to texts), numbers (text to number).
    """
    return [_field(name, field) for name, field in model.model_fields.items() if name not in without]


def _field(name: str, field: FieldInfo) -> dict[str, Any]:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    kind, values = _kind(field.annotation, name)
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    found: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "title": {"en": field.title or name.replace("_", " "), "zh": extra.get("title_zh") or field.title or name},
        "help": {"en": field.description or "", "zh": extra.get("help_zh") or field.description or ""},
        "basic": extra.get("group", "basic") == "basic",
        "default": _json(default),
        "optional": NoneType in get_args(field.annotation),
        **{limit: value for rule in field.metadata for limit, value in _limits(rule).items()},
    }
    if values:
        words: Any = extra.get("options", {})
        found["options"] = [{"value": v, **dict(zip(("en", "zh"), words.get(v, (v, v)), strict=True))} for v in values]
    most = found.get("max_length", 0)
    if kind == "text" and (most > LONG or extra.get("format") == "textarea"):
        found["kind"] = "area"
    return found


def _kind(annotation: Any, name: str) -> tuple[str, tuple[Any, ...]]:
    """The kind of a field and, of choices, the values."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(inner[0], name)
    if origin in (Union, UnionType):
        (first, *others) = [one for one in inner if one is not NoneType]
        if not others:
            return _kind(first, name)
    if origin is Literal:
        return "choice", inner
    simple = {str: "text", bool: "switch", int: "integer", float: "number"}
    if annotation in simple:
        return simple[annotation], ()
    if origin in (tuple, list, set, frozenset) and inner:
        of, values = _kind(inner[0], name)
        if of == "choice":
            return "choices", values
        if of == "text":
            return "lines", ()
    if origin in (dict, Mapping):
        of, _ = _kind(inner[1], name)
        if of in ("text", "lines", "number", "integer"):
            return {"text": "pairs", "lines": "lists"}.get(of, "numbers"), ()
    raise TypeError(f"{name}: no form field for {annotation}")


def _limits(rule: Any) -> dict[str, Any]:
    names = {"ge": "min", "gt": "above", "le": "max", "lt": "below", "multiple_of": "step", "max_length": "max_length"}
    found = {to: getattr(rule, name) for name, to in names.items() if getattr(rule, name, None) is not None}
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def _json(value: Any) -> Any:
    if isinstance(value, tuple | set | frozenset):
        return [_json(one) for one in value]
    return {key: _json(one) for key, one in value.items()} if isinstance(value, Mapping) else value
