"""Two browsers look at one queue: what one does, the other sees, without a reload."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Studio, open_page, open_tab

pytestmark = [pytest.mark.browser]
TRAINING = {"model": "easel-demo.safetensors", "dataset": "bbdr", "steps": 100_000, "resolution": 64, "rank": 1}


def titles(page: Page) -> list[str]:
    return page.locator("easel-queue ol:not(.past) .ez-job b").all_inner_texts()


def job(page: Page, title: str) -> Any:
    return page.locator("easel-queue ol:not(.past) .ez-job", has=page.get_by_text(title, exact=True))


def eventually(page: Page, condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        page.wait_for_timeout(100)
    raise AssertionError("it did not come")


def test_two_browsers_see_and_change_the_same_queue(chromium: Browser, furnished: Studio) -> None:
    ids = {}
    for name in ("first", "second", "third"):
        body = {"kind": "train", "title": name, "settings": {**TRAINING, "name": name}}
        ids[name] = furnished.post("/studio/jobs", body)["id"]
    (one, said_one), (two, said_two) = (open_page(chromium, furnished) for _ in range(2))
    try:
        for page in (one, two):
            open_tab(page, "queue")
        furnished.wait_for_job(ids["first"], ("running",))
        eventually(two, lambda: titles(two) == ["first", "second", "third"])

        third = one.locator("easel-queue ol:not(.past) > li", has=one.get_by_text("third", exact=True))
        third.get_by_label("Move up").click()
        eventually(two, lambda: titles(two) == ["first", "third", "second"])

        job(two, "second").locator("[data-do=cancel]").click()
        eventually(one, lambda: titles(one) == ["first", "third"])
        expect(one.locator("easel-queue .past .ez-job.cancelled b").first).to_have_text("second")

        job(two, "third").locator("[data-do=cancel]").click()
        job(one, "first").locator("[data-do=pause]").click()
        expect(job(two, "first").locator("[data-do=resume]")).to_be_visible(timeout=60_000)
        job(two, "first").locator("[data-do=cancel]").click()
        eventually(one, lambda: titles(one) == [])
        one.locator("easel-queue .past .ez-job", has=one.get_by_text("second", exact=True)).locator(
            "[data-do=retry]"
        ).click()
        eventually(two, lambda: titles(two) == ["second"])
    finally:
        for known in furnished.get("/studio/jobs?states=queued,running,paused"):
            furnished.post(f"/studio/jobs/{known['id']}/cancel", {})
        for page in (one, two):
            page.context.close()
    assert said_one == [] and said_two == []
    for job_id in ids.values():
        furnished.wait_for_job(job_id)


def test_a_failed_job_says_why_and_keeps_its_details_open(chromium: Browser, furnished: Studio) -> None:
    page, _ = open_page(chromium, furnished, language="zh")
    open_tab(page, "queue")
    failed = page.locator("easel-queue .ez-job.failed").first
    expect(failed.locator(".bad")).to_contain_text("broken.safetensors")
    failed.locator("summary").click()
    page.evaluate("document.querySelector('easel-queue').draw()")
    expect(failed.locator("pre")).to_be_visible()
    page.context.close()
