"""Every word the page shows, in English and Chinese: one JSON file a language, the same keys in both.

`T("key")` is a Gradio label that follows the browser; `say("key", "zh")` is a plain string for what Python makes.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr

from engine.errors import Language
from tabs.fields import words_of
from trainers.presets import presets
from trainers.settings import SECTION_TITLES, TrainSettings


@cache
def table(language: Language) -> dict[str, str]:
    """Key to words, all files of a language in one table."""
    folder = Path(__file__).parent / language
    merged: dict[str, str] = {}
    for path in sorted(folder.glob("*.json")):
        merged |= json.loads(path.read_text(encoding="utf-8"))
    return merged | words_of("train", TrainSettings, language) | _of_training(language)


def _of_training(language: Language) -> dict[str, str]:
    """Words that belong to the trainer's settings and presets, and are declared there."""
    zh = language == "zh"
    sections = {f"train.section.{name}": f"### {words[zh]}" for name, words in SECTION_TITLES.items()}
    return sections | {f"train.preset.{p.name}": p.title_zh if zh else p.title for p in presets()}


@cache
def i18n() -> gr.I18n:
    return gr.I18n(en=table("en"), zh=table("zh"), **{"zh-CN": table("zh"), "zh-TW": table("zh")})


def T(key: str) -> Any:
    """A label in the page's language. A key nobody wrote words for fails here, not on the page."""
    if key not in table("en"):
        raise KeyError(f"no words for {key!r} in tabs/words/en")
    return i18n()(key)


def say(key: str, language: Language, **values: Any) -> str:
    return table(language)[key].format(**values)
