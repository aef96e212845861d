"""Form fields made from a pydantic settings model: type, default, range and words are read from the model, so that a
setting is declared once. It knows no particular model."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

import gradio as gr
from gradio.components import Component
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from engine.errors import Language


def words_of(prefix: str, model: type[BaseModel], language: Language) -> dict[str, str]:
    """`{prefix}.{field}` and `{prefix}.{field}.help` for the table of words."""
    words = {}
    for name, field in model.model_fields.items():
        extra = _extra(field)
        zh = language == "zh"
        words[f"{prefix}.{name}"] = extra["title_zh"] if zh else field.title or name
        words[f"{prefix}.{name}.help"] = extra["help_zh"] if zh else field.description or ""
    return words


def section_of(field: FieldInfo) -> str:
    return _extra(field)["section"]


def is_basic(field: FieldInfo) -> bool:
    return _extra(field)["group"] == "basic"


def component(name: str, field: FieldInfo, label: Any, info: Any, **options: Any) -> Component:
    """The widget for one field: a choice, a switch, a number or text. Several texts are one a line. A number out of
    range is not the widget's business: the model refuses it in the reader's language."""
    kind, default = field.annotation, shown(options.pop("value", field.default))
    common: dict[str, Any] = {"label": label, "info": info, "elem_id": options.pop("elem_id", None)}
    common["elem_classes"] = ["ez-field", *([] if is_basic(field) else ["ez-advanced"])]
    if "choices" in options:
        return gr.Dropdown(options["choices"], value=default, allow_custom_value=True, **common)
    if get_origin(kind) is Literal:
        return gr.Dropdown(list(get_args(kind)), value=default, **common)
    if kind is bool:
        return gr.Checkbox(default, **common)
    if kind in (int, float):
        return gr.Number(default, precision=0 if kind is int else None, **common)
    lines = 3 if get_origin(kind) is tuple else 1
    return gr.Textbox(default, lines=lines, max_lines=8, **common)


def shown(value: Any) -> Any:
    """A setting's value as its widget holds it."""
    return "\n".join(value) if isinstance(value, tuple | list) else value


def taken(field: FieldInfo, value: Any) -> Any:
    """What a widget holds, as the settings model wants it."""
    if get_origin(field.annotation) is tuple:
        return [line.strip() for line in (value or "").splitlines() if line.strip()]
    if field.annotation is int and isinstance(value, float) and value.is_integer():
        return int(value)
    return value if value is not None else ("" if field.annotation is str else None)


def _extra(field: FieldInfo) -> dict[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
