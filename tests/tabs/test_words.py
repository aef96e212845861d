"""Words: the same in both languages, and there for every key that the page asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tabs import shell
from tabs.words import T, say, table

TABS = Path(shell.__file__).parent
PLACEHOLDER = re.compile(r"\{(\w+)\}")
# T("..."), t('...'): a whole key. T(f"..."), t('...' + x), t(`...${x}`): the part before what is put in.
WHOLE = re.compile(r"""\b(?:T|t)\(\s*(["'])([\w.]+)\1\s*[,)]""")
BEGUN = re.compile(r"""\b(?:T\(f"([\w.]+)\{|t\('([\w.]+)' \+|t\(`([\w.]+)\$\{)""")
NOT_WORDS = ("edit.",)  # titles of edits are names and signs; only some have words


def sources() -> Iterator[tuple[Path, str]]:
    for path in (*TABS.glob("*.py"), *(TABS / "static").rglob("*.js")):
        yield path, path.read_text(encoding="utf-8")


def test_both_languages_have_the_same_keys_and_each_has_words() -> None:
    assert table("en").keys() == table("zh").keys()
    assert [key for key, words in table("zh").items() if not words.strip()] == []
    assert [key for key, words in table("en").items() if not words.strip()] == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_key_is_in_one_file_only(language: str) -> None:
    seen: dict[str, str] = {}
    twice = []
    for path in sorted((TABS / "words" / language).glob("*.json")):
        keys = [key for key, _ in json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=list)]
        twice += [f"{key}: {seen[key]}, {path.name}" for key in keys if key in seen]
        seen |= dict.fromkeys(keys, path.name)
        assert len(keys) == len(set(keys)), path.name
    assert twice == []


def test_placeholders_are_the_same_in_both_languages() -> None:
    en, zh = table("en"), table("zh")
    written = [key for key in en if not key.startswith("train.") or not key.endswith(".help")]  # help has {red|blue}
    assert [k for k in written if set(PLACEHOLDER.findall(en[k])) != set(PLACEHOLDER.findall(zh[k]))] == []


def test_every_key_that_the_page_asks_for_has_words() -> None:
    known = table("en")
    asked = {(path.name, key) for path, text in sources() for _, key in WHOLE.findall(text)}
    assert len(asked) > 100
    assert {one for one in asked if one[1] not in known} == set()


def test_every_group_of_keys_that_the_page_builds_has_words() -> None:
    known = table("en")
    groups = {(path.name, "".join(found)) for path, text in sources() for found in BEGUN.findall(text)}
    assert len(groups) >= 8
    lost = {(name, begun) for name, begun in groups if not any(key.startswith(begun) for key in known)}
    assert {one for one in lost if one[1] not in NOT_WORDS} == set()


def test_no_words_are_left_that_nobody_asks_for() -> None:
    text = "".join(source for _, source in sources())
    begun = tuple("".join(found) for found in BEGUN.findall(text))
    come_in = "refused input. user. phase. metric. kind. state. worker. models. ledger. role. edit. train."  # by name
    named = tuple(come_in.split())
    unused = [key for key in table("en") if key not in text and not key.startswith((*begun, *named))]
    assert unused == []


def test_a_key_without_words_fails_where_it_is_written() -> None:
    with pytest.raises(KeyError, match="no words for 'generate"):
        T("generate.nothing")


def test_plain_words_take_their_values() -> None:
    assert say("job.left", "zh", time="1:05") == "剩余 1:05"
