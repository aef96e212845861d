from __future__ import annotations

import pytest

from engine.dataset.library import Dataset
from engine.dataset.prose import check, contradictions, coverage, most_used, phrases, repeats, unfinished
from engine.dataset.records import Reading
from engine.dataset.view import View

ROUND = "a red card on a table, " * 8


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.0),
        ("three words only", 0.0),
        ("A girl with long hair stands in a field of flowers under a blue sky.", 0.0),
        ("one two three four one two three four", 0.2),
    ],
)
def test_the_share_of_words_that_were_there_before(text: str, share: float) -> None:
    assert repeats(text) == pytest.approx(share)


def test_a_model_in_a_loop_is_far_over_the_bound_and_prose_far_under() -> None:
    assert repeats(ROUND) > 0.8
    assert repeats("The girl wears a red hat and a red coat. The boy wears a blue hat and a blue coat.") < 0.1


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("A girl. She stands in a", True),
        ("A girl. She stands.", False),
        ('A sign. It reads "Open."', False),
        ("1girl, long hair, smile", False),
        ("A girl stands", False),
        ("", False),
    ],
)
def test_a_sentence_without_an_end_is_told_and_a_list_is_none(text: str, cut: bool) -> None:
    assert unfinished(text) is cut


def test_empty_phrases_are_found_whatever_the_case_and_not_inside_words() -> None:
    assert phrases("This  Image shows a cat. It appears to be asleep.") == ("this image shows", "appears to be")
    assert phrases("The painting shows a cat.") == ()
    assert phrases("Reimage shows", ("image shows",)) == ()


def test_tags_are_mentioned_in_other_words_too() -> None:
    text = "A woman with long, wavy, golden hair and two braids holds umbrellas outdoors."
    assert coverage(text, ["1girl", "long_hair", "blonde_hair", "umbrella", "outdoors", "hat"]) == (
        pytest.approx(5 / 6),
        ("hat",),
    )
    assert coverage(text, []) == (1.0, ())


@pytest.mark.parametrize(
    ("text", "tags", "expected"),
    [
        ("A girl with blonde hair.", ["black_hair"], ("blonde hair, but black hair",)),
        ("A girl with black hair.", ["black_hair", "long_hair"], ()),
        ("A girl with long black hair and blue eyes.", ["black_hair", "red_eyes"], ("blue eyes, but red eyes",)),
        ("A blue hat.", ["black_hair"], ()),
        ("Two girls sitting indoors.", ["1girl", "outdoors"], ("indoors, but outdoors", "2girls, but 1girl")),
        ("Blonde and black hair.", ["black_hair"], ()),
        ("Grey eyes", ["gray_eyes"], ()),
    ],
)
def test_what_the_tags_exclude_is_a_contradiction(text: str, tags: list[str], expected: tuple[str, ...]) -> None:
    assert contradictions(text, tags) == expected


def test_the_captions_of_a_dataset_are_checked_against_its_sure_tags(dataset: Dataset) -> None:
    store = dataset.store
    first, second, third = (picture.id for picture in store.pictures())
    source = store.source("tagger:a")
    rows = [("black_hair", "general", 0.9), ("hat", "general", 0.8), ("dog", "general", 0.3)]
    store.add_readings(source.id, {first: Reading([*rows, ("rating:safe", "rating", 0.99)])})
    store.write_captions({first: "In this image a girl has blonde hair.", second: ROUND}, "edit")
    found = {one.picture: one for one in check(View(store))}
    assert set(found) == {first, second}
    one = found[first]
    assert (one.loops, one.banned, one.coverage, one.missing) == (False, ("in this image",), 0.0, ("black_hair", "hat"))
    assert one.contradictions == ("blonde hair, but black hair",)
    assert found[second].loops
    assert most_used(found.values()) == [("in this image", 1)]
    assert third not in found
