"""Cyclic garbage goes between jobs, now and then."""

from __future__ import annotations

import weakref

from engine.collecting import Collector


class Circle:
    def __init__(self) -> None:
        self.me = self


def test_circles_go_between_jobs_but_not_after_each() -> None:
    seldom = Collector(every=3600)
    gone = weakref.ref(Circle())
    assert not seldom.after_job()
    assert Collector(every=0).after_job() and gone() is None
