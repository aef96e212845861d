"""What is refused before it is queued."""

from __future__ import annotations

import pytest

from engine.errors import InvalidSetting, UnknownSetting
from engine.jobs.errors import UnknownKind
from engine.jobs.store import JobStore
from engine.jobs.submit import submit
from engine.jobs.types import Priority
from tests.jobs.kinds import kinds


def test_settings_are_stored_complete_with_the_kinds_priority(store: JobStore) -> None:
    job = submit(store, kinds(), "work", {"file": "a"}, title="a title")
    assert job.settings == {"file": "a", "steps": 100, "pause": 0.01, "die_at": -1, "gate": ""}
    assert (job.priority, job.resumable, job.title) == (Priority.train, True, "a title")
    assert submit(store, kinds(), "add", {}, priority=Priority.batch).priority == Priority.batch


def test_an_unknown_kind_is_refused_with_the_known_ones(store: JobStore) -> None:
    with pytest.raises(UnknownKind) as error:
        submit(store, kinds(), "subtract", {})
    assert str(error.value) == "There is no job kind 'subtract'. Known: add, die, hold, odd, work."


def test_a_mistyped_setting_is_refused_with_the_nearest_name(store: JobStore) -> None:
    with pytest.raises(UnknownSetting) as error:
        submit(store, kinds(), "work", {"file": "a", "stepps": 3})
    assert error.value.values["nearest"] == "steps"


def test_a_wrong_value_is_refused_and_nothing_is_queued(store: JobStore) -> None:
    with pytest.raises(InvalidSetting) as error:
        submit(store, kinds(), "add", {"a": "many"})
    assert error.value.values["name"] == "a"
    assert store.list() == []
