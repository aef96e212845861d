from __future__ import annotations

import pytest

from engine.dataset.captions import CaptionRules
from engine.dataset.export import set_rules
from engine.dataset.health import health
from engine.dataset.library import Dataset
from engine.dataset.pictures import scan
from engine.dataset.query import matching
from engine.dataset.records import Policy, Reading
from engine.dataset.review import Score, accept_suggestions, agreement, metrics, queue, suggestions
from engine.dataset.view import View
from tests.dataset.conftest import picture


@pytest.fixture
def large(dataset: Dataset) -> Dataset:
    """Twelve pictures in all."""
    for i in range(9):
        picture(dataset.root / f"p{i}.png", 40 + i)
    scan(dataset)
    return dataset


def test_metrics_count_only_what_was_decided(large: Dataset) -> None:
    source = large.store.source("tagger:x", policy=Policy({"general": 0.5})).id
    large.store.add_readings(
        source, {i: Reading([("cat", "general", 0.9), ("dog", "general", 0.3)]) for i in range(1, 6)}
    )
    large.store.decide([(1, "cat", 1), (2, "cat", 1), (3, "cat", -1), (1, "dog", 1), (2, "hat", 1)], "Review")
    overall, by_tag = metrics(View(large.store), source)
    assert (overall.accepted, overall.rejected, overall.missed) == (2, 1, 2)
    assert (round(overall.precision, 3), overall.recall, round(overall.f1, 3), overall.miss_rate) == (
        0.667,
        0.5,
        0.571,
        0.5,
    )
    assert by_tag[0] == Score("cat", 2, 1, 0)


def test_a_threshold_is_suggested_from_accepts_and_rejects_and_applied_as_one_edit(large: Dataset) -> None:
    source = large.store.source("tagger:x", policy=Policy({"general": 0.5})).id
    scores = [0.9, 0.8, 0.7, 0.62, 0.6, 0.55]
    large.store.add_readings(source, {i + 1: Reading([("cat", "general", s)]) for i, s in enumerate(scores)})
    large.store.decide([(i + 1, "cat", 1 if s >= 0.7 else -1) for i, s in enumerate(scores)], "Review")
    view = View(large.store)
    (found,) = suggestions(view, source)
    assert (found.name, found.now, found.proposed, found.f1_then, found.support) == ("cat", 0.5, 0.66, 1.0, 6)
    assert round(found.f1_now, 3) == 0.667
    large.store.undo()  # the decisions: the threshold shows its effect alone
    accept_suggestions(view, source, [found])
    assert view.mask("cat").sum() == 3
    large.store.undo()
    assert view.mask("cat").sum() == 6


def test_too_few_decisions_suggest_nothing(large: Dataset) -> None:
    source = large.store.source("tagger:x", policy=Policy({"general": 0.5})).id
    large.store.add_readings(source, {i: Reading([("cat", "general", 0.6)]) for i in (1, 2)})
    large.store.decide([(1, "cat", -1), (2, "cat", -1)], "Review")
    assert suggestions(View(large.store), source) == []


def test_agreement_and_the_order_of_review(dataset: Dataset) -> None:
    ids = []
    for tool, sets in (("tagger:x", ["ab", "ab", "a"]), ("tagger:y", ["ab", "cd", "a"])):
        source = dataset.store.source(tool, policy=Policy({"general": 0.5}))
        ids.append(source.id)
        scores = {1: 0.95, 2: 0.9, 3: 0.51}
        dataset.store.add_readings(
            source.id, {i + 1: Reading([(t, "general", scores[i + 1]) for t in tags]) for i, tags in enumerate(sets)}
        )
    view = View(dataset.store)
    assert agreement(view) == {(ids[0], ids[1]): pytest.approx(3 / 7)}
    assert queue(view) == [2, 3, 1]
    dataset.store.decide([(2, "a", 1)], "Seen")
    assert queue(view) == [3, 1, 2]


def test_tags_that_occur_together(dataset: Dataset) -> None:
    dataset.store.decide([(1, "a", 1), (1, "b", 1), (2, "a", 1), (2, "b", 1), (2, "c", 1), (3, "c", 1)], "Tags")
    assert [(c.name, c.pictures) for c in View(dataset.store).together("a")] == [("b", 2), ("c", 1)]


def test_health_names_what_to_mend_with_a_filter_that_shows_it(dataset: Dataset) -> None:
    (dataset.root / "broken.png").write_bytes(b"")
    picture(dataset.root / "long.png", 60, (900, 100))
    scan(dataset)
    dataset.store.decide([(1, "cat", 1)], "Tag")
    view = View(dataset.store)
    card = health(dataset, view)
    assert (card.pictures, card.tagged, card.tags, card.shorter_side) == (4, 1, 1, (32, 32, 100))
    found = {f.code: f for f in card.findings}
    assert {code: f.count for code, f in found.items()} == {
        "unreadable": 1,
        "few": 4,
        "small": 4,
        "odd shape": 1,
        "no words": 3,
        "no trigger word": 1,
    }
    for finding in found.values():
        if finding.filter:
            assert matching(view, finding.filter).sum() == finding.count
        assert finding.en and finding.zh


def test_small_is_what_is_smaller_than_the_training(dataset: Dataset) -> None:
    def small(side: int) -> list[str]:
        return [f.filter for f in health(dataset, View(dataset.store), side).findings if f.code == "small"]

    assert (small(32), small(33)) == ([], ["res:<33"])


def test_a_sound_dataset_has_no_findings(dataset: Dataset) -> None:
    for i in range(10):
        picture(dataset.root / f"p{i}.png", 40 + i, (600, 700))
    for path in ("a.png", "b.png", "sub/c.jpg"):
        (dataset.root / path).unlink()
    scan(dataset)
    set_rules(dataset, CaptionRules(trigger_word="bbdr"))
    view = View(dataset.store)
    dataset.store.decide([(p.id, tag, 1) for p in view.pictures()[:5] for tag in ("x", "y")], "Tags")
    dataset.store.decide([(p.id, tag, 1) for p in view.pictures()[5:] for tag in ("z", "y")], "Tags")
    assert [f.code for f in health(dataset, view).findings] == ["everywhere"]
