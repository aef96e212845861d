from __future__ import annotations

import pytest

from engine.dataset.compare import Pair, Tally, pairs, tally, writers
from engine.dataset.library import Dataset
from engine.dataset.view import View


def compared(dataset: Dataset) -> list[Pair]:
    one, other = (source.id for source, _ in writers(dataset.store))
    return pairs(dataset.store, View(dataset.store).pictures(), one, other)


@pytest.fixture
def described(dataset: Dataset) -> Dataset:
    """Captioner x has read all three pictures, y the first two."""
    dataset.store.write_captions({i: f"x says {i}" for i in (1, 2, 3)}, "Caption", tool="captioner:x")
    dataset.store.write_captions({i: f"y says {i}" for i in (1, 2)}, "Caption", tool="captioner:y")
    return dataset


def test_pictures_that_both_described_are_compared_and_votes_are_kept(described: Dataset) -> None:
    assert [(source.tool, n) for source, n in writers(described.store)] == [("captioner:x", 3), ("captioner:y", 2)]
    first, second = compared(described)
    assert (first.left[1], first.right[1]) == ("x says 1", "y says 1")
    described.store.vote(first.left[0], first.right[0], first.right[0], "Vote")
    described.store.vote(second.right[0], second.left[0], 0, "Vote")
    assert tally(compared(described)) == Tally(left=0, right=1, neither=1, open=0)
    described.store.undo()
    found = compared(described)
    assert tally(found) == Tally(left=0, right=1, neither=0, open=1)
    assert found[0].picture.id == 2  # without a vote first


def test_a_caption_that_is_written_anew_has_no_vote_yet(described: Dataset) -> None:
    first = compared(described)[0]
    described.store.vote(first.left[0], first.right[0], first.left[0], "Vote")
    described.store.write_captions({1: "x thinks again"}, "Caption", tool="captioner:x")
    assert tally(compared(described)).open == 2


def test_a_vote_is_for_one_of_the_two(described: Dataset) -> None:
    first, second = compared(described)
    with pytest.raises(ValueError, match="can't be for"):
        described.store.vote(first.left[0], first.right[0], second.left[0], "Vote")


def test_the_captions_of_one_captioner_become_current_as_one_edit(described: Dataset) -> None:
    view = View(described.store)
    described.store.write_captions({2: "mine"}, "Edit")
    assert view.captions() == ["y says 1", "mine", "x says 3"]
    one = writers(described.store)[0][0]
    described.store.adopt_captions(one.id, "Take x", pictures=[1, 2])
    assert view.captions() == ["x says 1", "x says 2", "x says 3"]
    described.store.undo()
    assert view.captions() == ["y says 1", "mine", "x says 3"]
