"""The job store: order, wishes, what a crash leaves, several threads and processes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from engine.errors import DiskFull
from engine.jobs.errors import (
    CannotMove,
    CannotPause,
    DuplicateJob,
    StoreBroken,
    StoreTooNew,
    UnknownJob,
    WrongState,
)
from engine.jobs.store import JobStore
from engine.jobs.types import Job, JobSpec, JobState, Priority
from engine.progress import Progress

CRASH = {"code": "WorkerDied", "en": "it died", "zh": "崩溃", "traceback": "Fatal Python error"}


def put(store: JobStore, title: str, front: bool = False, **more: Any) -> Job:
    return store.submit(JobSpec("add", {"a": 1}, title=title, **more), front)


def line(store: JobStore) -> list[str]:
    return [job.title for job in store.in_line()]


def events(store: JobStore, job: Job) -> list[str]:
    return [event.event for event in store.events_since(0) if event.job_id == job.id]


def test_a_job_comes_back_as_it_was_submitted(store: JobStore) -> None:
    spec = JobSpec("train", {"name": "小猫", "rank": 8}, Priority.train, "cats", "ann", "client-1", "my-id", True)
    job = store.submit(spec)
    assert job == store.get("my-id")
    assert (job.id, job.kind, job.settings, job.priority) == ("my-id", "train", {"name": "小猫", "rank": 8}, 2)
    assert (job.title, job.user, job.client_id, job.resumable) == ("cats", "ann", "client-1", True)
    assert (job.state, job.attempts, job.wish, job.held) == (JobState.queued, 0, "", False)


def test_an_id_is_given_once(store: JobStore) -> None:
    put(store, "first", id="same")
    with pytest.raises(DuplicateJob):
        put(store, "second", id="same")
    assert line(store) == ["first"]


def test_an_unknown_job_is_an_error(store: JobStore) -> None:
    with pytest.raises(UnknownJob):
        store.get("nobody")
    with pytest.raises(UnknownJob):
        store.cancel("nobody")


def test_the_line_goes_by_priority_then_by_arrival_and_front_comes_first(store: JobStore) -> None:
    put(store, "train", priority=Priority.train)
    put(store, "one")
    put(store, "two")
    put(store, "first", front=True)
    put(store, "even before", front=True)
    put(store, "batch", priority=Priority.batch)
    assert line(store) == ["even before", "first", "one", "two", "batch", "train"]


def test_next_job_can_be_limited_to_what_is_more_urgent(store: JobStore) -> None:
    train = put(store, "train", priority=Priority.train)
    batch = put(store, "batch", priority=Priority.batch)
    assert store.next_job() == batch
    assert store.next_job(above=Priority.train) == batch
    assert store.next_job(above=Priority.batch) is None
    assert store.next_job(kinds=["other"]) is None
    store.cancel(batch.id)
    assert store.next_job() == train


def test_moving_changes_the_order_any_number_of_times(store: JobStore) -> None:
    a, b, c = (put(store, name) for name in "abc")
    store.move(c.id, before=a.id)
    assert line(store) == ["c", "a", "b"]
    store.move(c.id)
    assert line(store) == ["a", "b", "c"]
    for _ in range(100):  # halving one gap 200 times leaves no room in a double
        store.move(c.id, before=b.id)
        store.move(a.id, before=c.id)
        store.move(c.id, before=a.id)
        store.move(a.id, before=b.id)
    assert line(store) == ["c", "a", "b"]


def test_only_queued_jobs_of_one_priority_can_be_moved(store: JobStore) -> None:
    a, b = put(store, "a"), put(store, "b")
    train = put(store, "train", priority=Priority.train)
    with pytest.raises(CannotMove):
        store.move(a.id, before=train.id)
    with pytest.raises(CannotMove):
        store.move(a.id, before=a.id)
    store.start(b.id)
    with pytest.raises(CannotMove):
        store.move(a.id, before=b.id)
    with pytest.raises(WrongState):
        store.move(b.id)


def test_a_queued_job_is_paused_resumed_and_cancelled_at_once(store: JobStore) -> None:
    job, other = put(store, "job"), put(store, "other")
    assert store.pause(job.id).state == JobState.paused
    assert line(store) == ["other"]
    assert store.resume(job.id).state == JobState.queued
    assert line(store) == ["job", "other"]
    assert store.cancel(job.id).state == JobState.cancelled
    assert line(store) == ["other"]
    assert events(store, job) == ["queued", "paused", "queued", "cancelled"]
    with pytest.raises(WrongState):
        store.pause(job.id)
    assert store.cancel(other.id).finished is not None


def test_what_is_asked_of_a_running_job_is_a_wish_until_it_is_done(store: JobStore) -> None:
    job = put(store, "job", resumable=True)
    store.start(job.id)
    assert store.pause(job.id).wish == "pause"
    assert store.get(job.id).state == JobState.running
    assert store.set_paused(job.id, held=True).wish == ""
    assert store.get(job.id).state == JobState.paused
    assert store.resume(job.id).wish == "resume"
    assert store.set_resumed(job.id).state == JobState.running
    assert store.resume(job.id).wish == ""  # nothing to do
    assert store.cancel(job.id).wish == "cancel"
    assert store.resume(job.id).wish == "cancel"  # a cancel is not taken back
    done = store.set_cancelled(job.id)
    assert (done.state, done.wish, done.held) == (JobState.cancelled, "", False)


def test_a_pause_that_is_taken_back_too_late_still_ends_running(store: JobStore) -> None:
    job = put(store, "job", resumable=True)
    store.start(job.id)
    store.pause(job.id)
    store.resume(job.id)  # the worker has stopped already, its report is on the way
    assert store.set_paused(job.id, held=True).wish == "resume"
    assert store.set_resumed(job.id).state == JobState.running


def test_a_running_job_that_can_not_resume_can_not_be_paused(store: JobStore) -> None:
    job = put(store, "job")
    store.start(job.id)
    with pytest.raises(CannotPause) as error:
        store.pause(job.id)
    assert "无法中途暂停" in error.value.text("zh")


def test_a_failed_job_keeps_its_error_and_what_it_had_and_can_be_retried(store: JobStore) -> None:
    job = put(store, "job")
    store.start(job.id)
    store.fail(job.id, CRASH, {"images": 1})
    failed = store.get(job.id)
    assert (failed.state, failed.error, failed.result) == (JobState.failed, CRASH, {"images": 1})
    assert store.events_since(0)[-1].data == {"error": CRASH}
    again = store.retry(job.id)
    assert (again.state, again.attempts, again.error) == (JobState.queued, 0, None)
    with pytest.raises(WrongState):
        store.retry(job.id)


def test_only_what_has_ended_can_be_deleted(store: JobStore) -> None:
    job = put(store, "job")
    with pytest.raises(WrongState):
        store.delete(job.id)
    store.cancel(job.id)
    store.delete(job.id)
    assert store.list() == []
    assert events(store, job)[-1] == "deleted"


def test_progress_is_kept_without_filling_the_log(store: JobStore) -> None:
    job = put(store, "job")
    store.start(job.id)
    before = store.last_seq()
    progress = Progress(3, 10, "training", "step 3", 7.5, {"loss": 0.25})
    store.progress(job.id, progress)
    assert store.get(job.id).progress == progress
    assert store.last_seq() == before


def test_lists_are_filtered_counted_and_paged(store: JobStore) -> None:
    jobs = [put(store, str(number)) for number in range(5)]
    store.cancel(jobs[0].id)
    assert [job.title for job in store.list()] == ["4", "3", "2", "1", "0"]
    assert [job.title for job in store.list(states=["queued"], limit=2, offset=1, newest_first=False)] == ["2", "3"]
    assert store.count(states=["queued"]) == 4
    assert store.list(states=[]) == []
    assert store.count(kinds=["train"]) == 0


def test_a_crashed_job_that_can_resume_goes_to_the_end_of_its_line_and_fails_the_second_time(store: JobStore) -> None:
    job = put(store, "crasher", resumable=True)
    put(store, "patient")
    store.start(job.id)
    assert [j.state for j in store.interrupt_held(CRASH)] == [JobState.queued]
    assert line(store) == ["patient", "crasher"]
    assert events(store, job) == ["queued", "running", "interrupted", "queued"]
    store.start(job.id)
    store.interrupt_held(CRASH)
    failed = store.get(job.id)
    assert failed.state == JobState.failed
    assert failed.error is not None
    assert failed.error["code"] == "TooManyAttempts"
    assert "it died" in failed.error["en"]
    assert failed.error["traceback"] == "Fatal Python error"


def test_a_crashed_job_that_can_not_resume_is_left_interrupted(store: JobStore) -> None:
    job = put(store, "job")
    store.start(job.id)
    store.interrupt_held(CRASH)
    left = store.get(job.id)
    assert (left.state, left.error, left.held) == (JobState.interrupted, CRASH, False)
    assert left.state.ended
    assert store.retry(job.id).state == JobState.queued


def test_only_the_innermost_job_is_blamed_for_a_crash(store: JobStore) -> None:
    train = put(store, "train", priority=Priority.train, resumable=True)
    put(store, "next train", priority=Priority.train)
    for _ in range(5):
        picture = put(store, "picture")
        store.start(train.id)
        store.start(picture.id, host=train.id)
        store.interrupt_held(CRASH)
        assert store.get(picture.id).state == JobState.interrupted
        assert store.get(train.id).attempts == 0
        assert line(store) == ["train", "next train"]


def test_an_attempt_that_lasted_long_is_no_crash_loop(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "s.db", forgive_after=0.0)
    job = put(store, "job", resumable=True)
    for _ in range(5):
        store.start(job.id)
        store.interrupt_held(CRASH)
    assert store.get(job.id).state == JobState.queued


def test_recover_honours_what_was_wished(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "s.db")
    names = ("running", "to cancel", "to pause", "paused", "to resume", "waiting", "held back")
    jobs = {name: put(store, name, resumable=True) for name in names}
    for name in names[:5]:
        store.start(jobs[name].id)
    store.cancel(jobs["to cancel"].id)
    store.pause(jobs["to pause"].id)
    for name in ("paused", "to resume"):
        store.set_paused(jobs[name].id, held=True)
    store.resume(jobs["to resume"].id)
    store.pause(jobs["held back"].id)
    store.close()

    store = JobStore(tmp_path / "s.db")
    store.recover()
    states = {name: str(store.get(job.id).state) for name, job in jobs.items()}
    assert states == {
        "running": "queued",
        "to cancel": "cancelled",
        "to pause": "paused",
        "paused": "paused",
        "to resume": "queued",
        "waiting": "queued",
        "held back": "paused",
    }
    assert store.held() == []
    assert store.resume(jobs["paused"].id).state == JobState.queued


def test_listeners_hear_changes_but_not_progress(store: JobStore) -> None:
    heard = []
    forget = store.on_change(lambda: heard.append(1))
    job = put(store, "job")
    store.start(job.id)
    store.progress(job.id, Progress(1, 2))
    assert len(heard) == 2
    forget()
    store.finish(job.id, {})
    assert len(heard) == 2


def test_another_store_on_the_file_sees_what_changed(store: JobStore) -> None:
    other = JobStore(store.path)
    own, seq = put(store, "own"), store.last_seq()
    job = put(other, "other's")
    other.cancel(own.id)
    assert [(event.job_id, event.event) for event in store.events_since(seq)] == [
        (job.id, "queued"),
        (own.id, "cancelled"),
    ]
    other.close()


def test_many_threads_of_two_processes_lose_nothing(store: JobStore) -> None:
    code = (
        "import sys; from pathlib import Path; from concurrent.futures import ThreadPoolExecutor;"
        "from engine.jobs.store import JobStore; from engine.jobs.types import JobSpec;"
        "store = JobStore(Path(sys.argv[1]));"
        "pool = ThreadPoolExecutor(4);"
        "list(pool.map(lambda n: store.submit(JobSpec('add', {'n': n}, user='child')), range(100)))"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(store.path)])
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: put(store, str(n), user="parent"), range(100)))
    assert child.wait(60) == 0
    jobs = store.list(limit=1000, newest_first=False)
    assert len(jobs) == 200
    assert sorted(job.settings["n"] for job in jobs if job.user == "child") == list(range(100))
    positions = [job.position for job in store.in_line()]
    assert positions == sorted(set(positions))
    assert [event.seq for event in store.events_since(0)] == list(range(1, 201))


def test_stores_opened_at_the_same_moment_make_one_schema(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(lambda _: JobStore(tmp_path / "s.db"), range(8)))
    put(stores[0], "job")
    assert all(line(store) == ["job"] for store in stores)


def test_settings_are_those_of_the_row_also_after_a_number_was_rolled_back(store: JobStore) -> None:
    first = put(store, "first")
    with pytest.raises(ValueError, match="no more"), store._transaction() as db:
        store._get(db, first.id)
        row = "INSERT INTO jobs (id, kind, settings, state, priority, position, title, user, client_id, resumable,"
        db.execute(row + " created) VALUES ('gone', 'add', '{\"a\": 7}', 'queued', 0, 9, '', '', '', 0, 0)")
        assert store._get(db, "gone").settings == {"a": 7}
        raise ValueError("no more")
    assert put(store, "second").settings == {"a": 1}
    assert [job.settings for job in store.list()] == [{"a": 1}, {"a": 1}]


def test_large_settings_do_not_stay_parsed(store: JobStore) -> None:
    job = store.submit(JobSpec("add", {"text": "x" * (9 * 2**20)}))
    assert len(store.get(job.id).settings["text"]) == 9 * 2**20
    assert store._parsed_size == 0 and not store._parsed


def test_a_file_that_is_no_database_is_refused_with_words(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.write_text("these are notes, not a database, " * 100)
    with pytest.raises(StoreBroken) as error:
        JobStore(path)
    assert "Move the file away" in str(error.value)
    assert path.read_text().startswith("these are notes")


def test_a_store_of_a_newer_version_is_refused(store: JobStore) -> None:
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE schema_versions SET version = 99 WHERE part = 'jobs'")
    with pytest.raises(StoreTooNew):
        JobStore(store.path)


def test_a_full_disk_loses_nothing_that_was_there(store: JobStore) -> None:
    put(store, "before")
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DiskFull):
        store.submit(JobSpec("add", {"text": "x" * 1_000_000}))
    store._db.execute("PRAGMA max_page_count = 1000000")
    put(store, "after")
    assert line(store) == ["before", "after"]
