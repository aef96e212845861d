"""Settings from TOML, JSON or a form, checked by a pydantic model: an unknown key is refused with the nearest name."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError

from engine.errors import CHECK_PATH, InvalidSetting, NotFound, UnknownSetting

Settings = TypeVar("Settings", bound=BaseModel)

# pydantic's reasons by its names for them; others stay in English
_REASONS_ZH = {
    "greater_than_equal": "应不小于 {ge}",
    "greater_than": "应大于 {gt}",
    "less_than_equal": "应不大于 {le}",
    "less_than": "应小于 {lt}",
    "multiple_of": "应为 {multiple_of} 的倍数",
    "int_type": "应为整数",
    "int_parsing": "应为整数",
    "int_from_float": "应为整数",
    "float_type": "应为数字",
    "float_parsing": "应为数字",
    "bool_type": "应为是或否",
    "bool_parsing": "应为是或否",
    "string_type": "应为文字",
    "string_pattern_mismatch": "含有不能使用的字符",
    "string_too_long": "最多 {max_length} 个字符",
    "literal_error": "应为 {expected} 之一",
    "missing": "缺少此项",
}


def setting(
    default: Any,
    title: str,
    zh: str,
    help: str = "",
    help_zh: str = "",
    *,
    basic: bool = True,
    options: dict[str, tuple[str, str]] | None = None,
    **limits: Any,
) -> Any:
    """A pydantic field with its words in English and Chinese, from which forms are drawn.

    `options`: words of choices, (English, Chinese) by value. Fields that are not `basic` are shown on demand.
    """
    extra: dict[str, Any] = {"title_zh": zh, "help_zh": help_zh, "group": "basic" if basic else "advanced"}
    if options:
        extra["options"] = {value: list(words) for value, words in options.items()}
    return Field(default, title=title, description=help, json_schema_extra=extra, **limits)


def checked(model: type[Settings], data: dict[str, Any], where: str) -> Settings:
    """`data` as an instance of `model`; `where` names its source in errors. Raises UnknownSetting or InvalidSetting."""
    _refuse_unknown(model, data, where)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or model.__name__
        reason = _reason(first["msg"])
        zh = _REASONS_ZH.get(first["type"], f" {reason}").format(**first.get("ctx", {}))
        raise InvalidSetting(where=where, name=name, value=first.get("input"), reason=reason, reason_zh=zh) from error


def read_toml(model: type[Settings], path: Path) -> Settings:
    """A TOML file as settings. Raises NotFound, InvalidSetting for what is no TOML, and what `checked` raises."""
    try:
        data = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError as error:
        raise NotFound(what="settings file", what_zh="设置文件", name=str(path), **CHECK_PATH) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = f"it can't be read: {error}"
        raise InvalidSetting(where=path.name, name="TOML", value=str(path), reason=reason) from error
    return checked(model, data, path.name)


def nearest(name: str, known: list[str]) -> str:
    """The known name most like `name`."""
    return max(known, key=lambda other: difflib.SequenceMatcher(None, name.lower(), other.lower()).ratio(), default="")


def _refuse_unknown(model: type[BaseModel], data: dict[str, Any], where: str, prefix: str = "") -> None:
    fields = {(field.alias or name): field for name, field in model.model_fields.items()}
    for name, value in data.items():
        if name not in fields:
            raise UnknownSetting(name=prefix + name, where=where, nearest=prefix + nearest(name, list(fields)))
        inner = _model_of(fields[name].annotation)
        if inner and isinstance(value, dict):
            _refuse_unknown(inner, value, where, f"{prefix}{name}.")


def _model_of(annotation: Any) -> type[BaseModel] | None:
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _reason(message: str) -> str:
    return message[:1].lower() + message[1:]
