from __future__ import annotations

import pytest
from pydantic import ValidationError

from engine.dataset.captions import (
    KAOMOJI,
    CaptionRules,
    Tag,
    canonical,
    caption,
    escape,
    matches,
    pretty,
    split_tags,
    tag_list,
)
from engine.dataset.tokens import count_tokens
from engine.families.parts.tokenizer import clip_tokenizer

TAGS = [
    Tag("long_hair", "general", 0.9, 0),
    Tag("fate_(series)", "copyright", 0.8, 1),
    Tag("o_o", "general", 0.7, 2),
    Tag("saber_(fate)", "character", 0.95, 3),
    Tag("1girl", "general", 0.99, 4),
    Tag("rating:general", "rating", 0.9, 5),
]


def test_the_trigger_word_is_first_then_categories_then_scores() -> None:
    rules = CaptionRules(trigger_word="bbdr", categories=("general", "character"))
    assert caption(rules, TAGS) == "bbdr, 1girl, long hair, o_o, saber (fate)"


def test_always_first_comes_before_categories_and_only_when_present() -> None:
    rules = CaptionRules(always_first=("saber (fate)", "absent", "1girl"))
    assert tag_list(rules, TAGS)[:2] == ["saber (fate)", "1girl"]


@pytest.mark.parametrize(
    ("order", "expected"),
    [("score", "c, a, b"), ("alphabet", "a, b, c"), ("as read", "b, c, a")],
)
def test_order(order: str, expected: str) -> None:
    tags = [Tag("b", score=0.1, position=0), Tag("c", score=0.9, position=1), Tag("a", score=0.5, position=2)]
    assert caption(CaptionRules.model_validate({"order": order}), tags) == expected


def test_the_blacklist_takes_patterns_and_brackets_are_letters() -> None:
    rules = CaptionRules(blacklist=("*_hair", "fate (series)", "[x]*"))
    assert "long hair" not in tag_list(rules, TAGS) and "fate (series)" not in tag_list(rules, TAGS)
    assert tag_list(rules, [Tag("x1"), Tag("[x]y")]) == ["x1"]


def test_replacements_merge_and_empty_ones_leave_out() -> None:
    rules = CaptionRules(replacements={"long hair": "hair", "o_o": ""})
    assert tag_list(rules, [*TAGS, Tag("hair", "general", 0.1, 9)]) == [
        "1girl",
        "hair",
        "saber (fate)",
        "fate (series)",
    ]


def test_kaomoji_keep_their_underscores() -> None:
    assert len(KAOMOJI) == 19
    assert [pretty(face) for face in sorted(KAOMOJI)] == sorted(KAOMOJI)
    assert pretty("long_hair") == "long hair"


def test_escapes_only_where_asked() -> None:
    assert tag_list(CaptionRules(escape=True), [Tag("fate_(series)"), Tag("a\\b")]) == [r"fate \(series\)", r"a\\b"]
    assert tag_list(CaptionRules(underscores="keep"), [Tag("fate_(series)")]) == ["fate_(series)"]


def test_a_text_is_written_once() -> None:
    rules = CaptionRules(trigger_word="bbdr", replacements={"cat": "animal", "dog": "animal"})
    assert caption(rules, [Tag("cat"), Tag("dog"), Tag("bbdr")]) == "bbdr, animal"


def test_prefixes_and_limits() -> None:
    rules = CaptionRules(category_prefix={"artist": "by "}, max_tags=2)
    assert tag_list(rules, [Tag("x", score=0.3), Tag("y", "artist", 0.9), Tag("z", score=0.2)]) == ["x", "z"]
    assert tag_list(CaptionRules(category_prefix={"artist": "by "}), [Tag("y", "artist")]) == ["by y"]


def test_implied_tags_are_dropped_or_added() -> None:
    table = {"kitten": ("cat",), "cat": ("animal",)}
    tags = [Tag("kitten", score=0.9), Tag("cat", score=0.8)]
    assert tag_list(CaptionRules(implications=table, implied="keep"), tags) == ["kitten", "cat"]
    assert tag_list(CaptionRules(implications=table, implied="drop"), tags) == ["kitten"]
    assert tag_list(CaptionRules(implications=table, implied="add"), tags) == ["kitten", "animal", "cat"]


def test_tags_that_imply_each_other_are_both_kept() -> None:
    table = {"a": ("b",), "b": ("a",)}
    assert tag_list(CaptionRules(implications=table, implied="drop"), [Tag("a"), Tag("b")]) == ["a", "b"]


def test_tags_and_text_together() -> None:
    tags = [Tag("cat")]
    assert (
        caption(CaptionRules(parts="caption", trigger_word="bbdr"), tags, "A photo\nof  it.") == "bbdr, A photo of it."
    )
    assert caption(CaptionRules(parts="caption", trigger_word="bbdr"), tags, "A photo of bbdr.") == "A photo of bbdr."
    assert caption(CaptionRules(parts="tags, caption"), tags, "A photo.") == "cat, A photo."
    assert caption(CaptionRules(parts="caption, tags"), tags, "A photo.") == "A photo., cat"
    assert caption(CaptionRules(parts="caption"), tags) == ""


def test_text_becomes_tags() -> None:
    assert split_tags("long hair,  fate \\(series\\), o_o,,\r\nlong_hair, :3\n") == [
        "long_hair",
        "fate_(series)",
        "o_o",
        ":3",
    ]
    assert canonical("  two  words ") == "two_words"


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValidationError):
        CaptionRules.model_validate({"tiger_word": "x"})


def test_aliases_come_before_everything_and_follow_their_chain() -> None:
    rules = CaptionRules(
        aliases={"kitty": "kitten", "kitten": "young cat"}, implications={"young cat": ("cat",)}, implied="add"
    )
    assert tag_list(rules, [Tag("kitty")]) == ["young cat", "cat"]
    circle = CaptionRules(aliases={"a": "b", "b": "a"})
    assert tag_list(circle, [Tag("a"), Tag("b", score=0.5)]) == ["a", "b"]


def test_a_comma_inside_a_tag_would_make_two_of_it() -> None:
    assert caption(CaptionRules(), [Tag("1,000_cranes"), Tag(";,;", score=0.5)]) == "1 000 cranes, ; ;"
    assert caption(CaptionRules(separator=" | "), [Tag("1,000_cranes")]) == "1,000 cranes"


def test_tags_go_from_the_end_until_the_caption_fits_its_text_encoder() -> None:
    tags = [Tag(f"red_hat_{i}", score=1 - i / 10) for i in range(5)]  # three tokens each, and a comma between
    assert caption(CaptionRules(max_tokens={"clip": 11}), tags) == "red hat 0, red hat 1, red hat 2"
    assert caption(CaptionRules(max_tokens={"clip": 10}), tags) == "red hat 0, red hat 1"
    assert caption(CaptionRules(max_tokens={"clip": 0}), tags).count(",") == 4
    both = CaptionRules(max_tokens={"clip": 6}, parts="tags, caption", trigger_word="bbdr")
    found = caption(both, tags, "a cat in the rain that never ends")
    assert found == "bbdr, a cat in"  # bbdr is two tokens: tags went first, then words of the text
    assert count_tokens("clip", found) <= 6


@pytest.mark.parametrize("text", ["", "a", "long hair, o_o, :3, ;,; , x", "a red hat, blue sky", "猫, fate (series)"])
def test_tokens_are_those_of_the_whole_text(text: str) -> None:
    assert count_tokens("clip", text) == len(clip_tokenizer().encode(text))


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("!?", "!!", False),
        ("!?", "!?", True),
        ("?", "x", False),
        ("*", "x", True),
        ("red_?at", "red_hat", True),
        ("...", "...", True),
        ("(o)_(?)", "(o)_(o)", True),
    ],
)
def test_patterns_of_signs_are_tags(pattern: str, name: str, fits: bool) -> None:
    assert matches(pattern, name) == fits


def test_arms_of_faces_are_no_escapes() -> None:
    assert canonical(r"\(^o^)/") == r"\(^o^)/"
    assert canonical(escape(r"\(^o^)/")) == r"\(^o^)/"
    assert canonical(r"saber \(fate\)") == "saber_(fate)"
    assert canonical(r"\m/") == r"\m/"
