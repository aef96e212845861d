"""Fields: widgets from a settings model, and their values back into it."""

from __future__ import annotations

from typing import Any, Literal

import gradio as gr
import pytest
from pydantic import BaseModel, Field

from tabs.fields import component, is_basic, section_of, shown, taken, words_of
from trainers.settings import SECTIONS, TrainSettings

WORDS = {"title_zh": "数量", "help_zh": "多少", "section": "what", "group": "basic"}


class Settings(BaseModel):
    count: int = Field(3, ge=1, le=9, title="Count", description="How many", json_schema_extra=WORDS)
    rate: float = Field(0.5, json_schema_extra=WORDS | {"group": "advanced"})
    on: bool = Field(True, json_schema_extra=WORDS)
    kind: Literal["a", "b"] = Field("b", json_schema_extra=WORDS)
    name: str = Field("x", json_schema_extra=WORDS)
    lines: tuple[str, ...] = Field(("one", "two"), json_schema_extra=WORDS)


FIELDS = Settings.model_fields


@pytest.mark.parametrize(
    ("name", "widget", "value"),
    [
        ("count", gr.Number, 3),
        ("rate", gr.Number, 0.5),
        ("on", gr.Checkbox, True),
        ("kind", gr.Dropdown, "b"),
        ("name", gr.Textbox, "x"),
        ("lines", gr.Textbox, "one\ntwo"),
    ],
)
def test_each_type_has_its_widget_with_the_default(name: str, widget: type, value: Any) -> None:
    made: Any = component(name, FIELDS[name], name, "")
    assert type(made) is widget
    assert made.value == value


def test_a_value_given_stands_for_the_default() -> None:
    made: Any = component("lines", FIELDS["lines"], "lines", "", value=("three",))
    assert made.value == "three"


def test_what_a_widget_holds_goes_back_into_the_model() -> None:
    assert taken(FIELDS["count"], 4.0) == 4
    assert taken(FIELDS["count"], 4.5) == 4.5  # the model refuses it, with words
    assert taken(FIELDS["count"], None) is None
    assert taken(FIELDS["name"], None) == ""
    assert taken(FIELDS["lines"], " a \n\n b ") == ["a", "b"]
    assert shown(("a", "b")) == "a\nb"


def test_words_come_from_the_model() -> None:
    assert words_of("s", Settings, "en")["s.count"] == "Count"
    assert words_of("s", Settings, "zh")["s.count"] == "数量"
    assert words_of("s", Settings, "zh")["s.count.help"] == "多少"


def test_basic_and_advanced_differ_in_their_class() -> None:
    assert is_basic(FIELDS["count"]) and not is_basic(FIELDS["rate"])
    rate: Any = component("rate", FIELDS["rate"], "rate", "")
    assert "ez-advanced" in rate.elem_classes


def test_every_training_setting_goes_through_its_widget_unchanged() -> None:
    defaults = TrainSettings()
    form = {name: shown(getattr(defaults, name)) for name in TrainSettings.model_fields}
    back = {name: taken(field, form[name]) for name, field in TrainSettings.model_fields.items()}
    assert TrainSettings.model_validate(back) == defaults
    assert {section_of(field) for field in TrainSettings.model_fields.values()} == set(SECTIONS)
