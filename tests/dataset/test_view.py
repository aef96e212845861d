from __future__ import annotations

import time

import numpy as np
import pytest

from engine.dataset.library import Dataset, Library
from engine.dataset.records import Policy, Reading
from engine.dataset.view import Count, View
from engine.workspace import Workspace


@pytest.fixture
def view(dataset: Dataset) -> View:
    source = dataset.store.source("tagger:x", policy=Policy({"general": 0.5, "character": 0.8}))
    readings = {
        1: Reading([("cat", "general", 0.9), ("dog", "general", 0.5), ("miku", "character", 0.7)]),
        2: Reading([("cat", "general", 0.6), ("dog", "general", 0.51)]),
        3: Reading([("rating:safe", "rating", 0.3), ("rating:sensitive", "rating", 0.4)]),
    }
    dataset.store.add_readings(source.id, readings)
    return View(dataset.store)


def test_a_score_must_be_over_the_threshold_not_on_it(view: View) -> None:
    assert [t.name for t in view.tags(1)] == ["cat"]
    assert [t.name for t in view.tags(2)] == ["cat", "dog"]


def test_only_the_likeliest_rating_counts(view: View) -> None:
    assert [t.name for t in view.tags(3)] == ["rating:sensitive"]


def test_counts_follow_thresholds_decisions_and_masks(dataset: Dataset, view: View) -> None:
    assert view.counts() == [
        Count("cat", "general", 2),
        Count("dog", "general", 1),
        Count("rating:sensitive", "rating", 1),
    ]
    dataset.store.decide([(1, "cat", -1), (1, "dog", 1), (2, "dog", -1), (3, "new", 1), (2, "cat", 1)], "Edit")
    assert {c.name: c.pictures for c in view.counts()} == {"cat": 1, "dog": 1, "rating:sensitive": 1, "new": 1}
    assert {c.name: c.pictures for c in view.counts(np.array([True, False, False]))} == {"dog": 1}
    assert view.mask("dog").tolist() == [True, False, False]
    assert view.mask("never heard of").tolist() == [False, False, False]


def test_scores_are_the_highest_of_all_sources(dataset: Dataset, view: View) -> None:
    other = dataset.store.source("tagger:y", policy=Policy({"general": 0.5}))
    dataset.store.add_readings(other.id, {1: Reading([("cat", "general", 0.95)])})
    assert np.allclose(view.scores("cat"), [0.95, 0.6, np.nan], equal_nan=True)


def test_mcut_uses_what_each_reading_kept(dataset: Dataset) -> None:
    source = dataset.store.source("tagger:m", policy=Policy({"general": 0.99}, mcut=("general",)))
    dataset.store.add_readings(
        source.id,
        {
            1: Reading([("a", "general", 0.9), ("b", "general", 0.4)], {"general": 0.65}),
            2: Reading([("a", "general", 0.9), ("b", "general", 0.4)], {"general": 0.3}),
        },
    )
    view = View(dataset.store)
    assert [[t.name for t in view.tags(i)] for i in (1, 2)] == [["a"], ["a", "b"]]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"how": "union"}, ["a", "b", "c", "mine"]),
        ({"how": "intersection"}, ["a", "mine"]),
        ({"how": "vote", "share": 0.5}, ["a", "b", "mine"]),
    ],
)
def test_taggers_are_merged_by_vote_and_what_a_person_wrote_always_counts(
    dataset: Dataset, how: dict, expected: list[str]
) -> None:
    for tool, weight, tags in (("tagger:x", 2.0, "ab"), ("tagger:y", 1.0, "ac"), ("sidecar", 1.0, ["mine"])):
        source = dataset.store.source(tool, policy=Policy({}, weight=weight))
        dataset.store.add_readings(source.id, {1: Reading([(t, "general", 0.9) for t in tags])})
    dataset.store.change_meta("merge", how, "Merge")
    assert sorted(t.name for t in View(dataset.store).tags(1)) == expected


def test_what_a_source_that_subtracts_read_is_taken_away(dataset: Dataset) -> None:
    for tool, tags in (("tagger:x", "abc"), ("sidecar", "bd"), ("tagger:minus", "bz")):
        policy = Policy({"general": 0.5}, subtracts=tool == "tagger:minus")
        source = dataset.store.source(tool, policy=policy)
        dataset.store.add_readings(source.id, {1: Reading([(t, "general", 0.9) for t in tags])})
    view = View(dataset.store)
    assert sorted(tag.name for tag in view.tags(1)) == ["a", "c", "d"]
    dataset.store.change_meta("merge", {"how": "intersection"}, "Merge")
    assert sorted(tag.name for tag in view.tags(1)) == ["a", "c", "d"]
    dataset.store.decide([(1, "b", 1)], "b all the same")
    assert sorted(tag.name for tag in view.tags(1)) == ["a", "b", "c", "d"]


def test_a_source_that_is_off_does_not_count(dataset: Dataset, view: View) -> None:
    (source,) = view.sources()
    dataset.store.set_policy(source.id, Policy(enabled=False), "Off")
    assert view.counts() == []
    dataset.store.undo()
    assert len(view.counts()) == 3


@pytest.mark.slow
@pytest.mark.usefixtures("settled")
def test_ten_thousand_pictures_answer_in_time(workspace: Workspace) -> None:
    """A million readings: filters and counts in 150 ms of CPU time, a moved threshold or an edit in a second or two."""
    with Library(workspace).create("large") as dataset:
        fill(dataset, 10_000)
        view = View(dataset.store)
        assert len(view.pictures()) == 10_000
        source = view.sources()[0].id
        assert best(lambda: view.mask("tag_7")) < 0.15
        assert best(lambda: view.counts(view.mask("tag_7"))) < 0.15
        dataset.store.decide([(i, "tag_7", -1) for i in range(1, 2000)], "Bulk")
        start = time.process_time()
        view.mask("tag_7")
        assert time.process_time() - start < 1.0
        dataset.store.set_policy(source, Policy({"general": 0.6}), "Move")
        start = time.process_time()
        view.counts()
        assert time.process_time() - start < 2.0


def best(call) -> float:
    times = []
    for _ in range(3):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def fill(dataset: Dataset, pictures: int, tags: int = 100) -> None:
    """Made-up pictures with `tags` scored tags each, out of 8,000 words of which some are frequent."""
    rng = np.random.default_rng(0)
    store = dataset.store
    with store.writing():
        for i in range(pictures):
            id = store.add_picture(f"{i:032x}", width=512, height=768, mode="RGB", format="PNG", bytes=1)
            store.put_file(f"p{i:05}.png", id, 1, 1)
    source = store.source("tagger:x", policy=Policy({"general": 0.35}))
    words = [f"tag_{i}" for i in range(8000)]
    for start in range(1, pictures + 1, 1000):
        readings = {}
        for id in range(start, min(start + 1000, pictures + 1)):
            chosen = np.unique((rng.random(tags) ** 4 * 8000).astype(int))
            readings[id] = Reading(
                [(words[w], "general", float(s)) for w, s in zip(chosen, rng.random(len(chosen)), strict=True)]
            )
        store.add_readings(source.id, readings)


def test_names_over_a_score_are_those_of_each_picture(dataset: Dataset) -> None:
    view, ids = View(dataset.store), [picture.id for picture in dataset.store.pictures()]
    source = dataset.store.source("tagger:a", policy=Policy({"general": 0.5}))
    rows = [("hat", "general", 0.8), ("cat", "general", 0.95), ("dog", "general", 0.6), ("safe", "rating", 0.99)]
    dataset.store.add_readings(source.id, {ids[0]: Reading(rows), ids[2]: Reading(rows[:1])})
    dataset.store.decide([(ids[0], "cat", -1), (ids[0], "sea", 1), (ids[1], "sky", 1)], "edit")
    expected = [tuple(tag.name for tag in view.tags(id) if tag.score >= 0.7 and tag.category != "rating") for id in ids]
    assert view.names_over(0.7) == expected == [("hat", "sea"), ("sky",), ("hat",)]
