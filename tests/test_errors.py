"""Every error has its words in both languages, over the same values."""

from __future__ import annotations

import importlib
import re
import string

from engine.errors import EaselError
from tests.test_layers import is_torch_free, modules


def subclasses(kind: type[EaselError]) -> list[type[EaselError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in subclasses(child))]


def fields(template: str) -> set[str]:
    """Names of the values; one that has its words per language (reason_en, reason_zh) counts once."""
    names = (name for _, name, _, _ in string.Formatter().parse(template) if name is not None)
    return {re.sub(r"^(en|zh)_|_(en|zh)$", "", re.split(r"[.\[]", name)[0]) for name in names}


def test_both_languages_say_the_same_values_and_chinese_is_chinese() -> None:
    for module in modules():
        if is_torch_free(module) and not module.endswith("__main__"):
            importlib.import_module(module)
    for kind in subclasses(EaselError):
        if kind.__module__.startswith("tests.") or kind.__qualname__ == "RemoteError" or "message" in fields(kind.en):
            continue
        assert fields(kind.zh) == fields(kind.en), kind.__qualname__
        assert any("\u4e00" <= letter <= "\u9fff" for letter in kind.zh), kind.__qualname__
