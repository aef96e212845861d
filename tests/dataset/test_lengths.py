from __future__ import annotations

import pytest

from engine.dataset.captions import CaptionRules, caption
from engine.dataset.lengths import token_counts
from engine.dataset.library import Dataset
from engine.dataset.records import Policy, Reading
from engine.dataset.tokens import count_tokens
from engine.dataset.view import View


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"trigger_word": "bbdr"},
        {"trigger_word": "bbdr", "parts": "tags, caption"},
        {"parts": "caption"},
        {"blacklist": ["long*"], "category_prefix": {"character": "of "}, "escape": True},
        {"max_tags": 1, "trigger_word": "cat"},
        {"trigger_word": "cat"},
        {"implications": {"long_hair": ["hair"]}, "implied": "add"},
        {"separator": " "},
    ],
)
def test_lengths_of_all_captions_are_those_of_each(dataset: Dataset, rules: dict) -> None:
    source = dataset.store.source("tagger:x", policy=Policy({"general": 0.5}))
    reading = Reading([("cat", "general", 0.9), ("long_hair", "general", 0.8), ("saber_(fate)", "character", 0.9)])
    dataset.store.add_readings(source.id, {1: reading, 2: Reading([("cat", "general", 0.6)])})
    dataset.store.decide([(2, "o_o", 1), (1, "cat", -1)], "Edit")
    dataset.store.write_captions({1: "A photo of bbdr.", 3: "a  cat\nsleeps"}, "Write")
    view, told = View(dataset.store), CaptionRules.model_validate(rules)
    each = [
        count_tokens("clip", caption(told, view.tags(p.id), text))
        for p, text in zip(view.pictures(), view.captions(), strict=True)
    ]
    found = token_counts(view, told, "clip")
    assert found.tolist()[1:] == each[1:]
    assert 0 <= each[0] - found[0] <= 1  # saber (fate) may come last
    assert max(each) > 0
