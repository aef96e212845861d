from __future__ import annotations

import random

import pytest

from engine.dataset.captions import CaptionRules, caption
from engine.dataset.lengths import token_counts
from engine.dataset.library import Dataset
from engine.dataset.records import Policy, Reading
from engine.dataset.tokens import TOKENIZERS, count_tokens
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
    assert token_counts(view, told, "clip").tolist() == each
    assert max(each) > 0


WORDS = ("cat", "long_hair", "saber_(fate)", "o_o", ":3", ";,", "红", "kitten", "!?", "by_night", "2girls", "don't")


@pytest.mark.parametrize("seed", range(12))
def test_lengths_are_those_of_each_under_any_rules(dataset: Dataset, seed: int) -> None:
    draw = random.Random(seed)
    some = [draw.choice(WORDS) for _ in range(4)]
    limits = {"clip": draw.choice([0, 4, 9, 20]), "t5": draw.choice([0, 6, 14])}
    rules = CaptionRules(
        trigger_word=draw.choice(["", "cat", "a (very) odd one"]),
        parts=draw.choice(["tags", "caption", "tags, caption", "caption, tags"]),
        order=draw.choice(["score", "alphabet", "as read"]),
        max_tags=draw.choice([0, 2, 5]),
        always_first=tuple(some[:2]),
        blacklist=(some[2], "long*")[: draw.choice([0, 1, 2])],
        replacements={some[3]: draw.choice(["cat", "", "a new one"])},
        aliases={"kitten": "cat"} if draw.random() < 0.5 else {},
        implications={"kitten": ("cat", "animal")},
        implied=draw.choice(["keep", "keep", "drop", "add"]),
        categories=draw.choice([("general", "character"), ("character",), ("meta", "general")]),
        category_prefix={"character": "of "},
        underscores=draw.choice(["space", "keep"]),
        escape=draw.random() < 0.5,
        separator=draw.choice([", ", ", ", " ", " | ", ","]),
        max_tokens={name: most for name, most in limits.items() if draw.random() < 0.7},
    )
    for tool in ("tagger:x", "tagger:y"):
        source = dataset.store.source(tool, policy=Policy({"general": 0.3, "character": 0.5}))
        readings = {}
        for id in (1, 2, 3):
            chosen = draw.sample(WORDS, draw.choice([0, 3, 9]))
            rows = [(name, draw.choice(["general", "character", "meta"]), draw.random()) for name in chosen]
            readings[id] = Reading(rows)
        dataset.store.add_readings(source.id, readings)
    dataset.store.decide([(draw.choice([1, 2, 3]), name, draw.choice([1, -1])) for name in WORDS[::2]], "Edit")
    texts = ["", "A cat, that is (so to say) tired; 红色的猫. a (very) odd one", "One cat\n two  cats."]
    dataset.store.write_captions({id: draw.choice(texts) for id in (1, 2, 3)}, "Write")
    view = View(dataset.store)
    for _ in range(4):  # after an edit only what it changed is counted again
        for encoder in ("clip", "t5"):
            each = [
                count_tokens(encoder, caption(rules, view.tags(p.id), text))
                for p, text in zip(view.pictures(), view.captions(), strict=True)
            ]
            assert token_counts(view, rules, encoder).tolist() == each, rules
        picture = draw.choice([1, 2, 3])
        dataset.store.decide([(picture, draw.choice(WORDS), draw.choice([1, 0, -1]))], "Edit")
        if draw.random() < 0.5:
            dataset.store.write_captions({picture: draw.choice(texts)}, "Write")
        if draw.random() < 0.3:
            dataset.store.decide([(picture, f"new_{draw.random()}", 1)], "Edit")


@pytest.mark.parametrize("encoder", ["clip", "t5"])
def test_words_are_counted_one_by_one(encoder: str) -> None:
    odd = "e\u0301 \u0301 ¨ x¨y \u200b 🙂\u200d↔️ ..."
    for text in (f"a cat, (o_o) don't 1girl's ;) {odd} 红 色, <|endoftext|> bb", "", "a  cat ", "one\ntwo\u3000three"):
        assert count_tokens(encoder, text) == len(TOKENIZERS[encoder]().encode(text))
