"""Tagging as a person sees it go on: a bar with what is left, which a reload does not lose, and a cancel.

The model is an address that answers only when it is let: how fast the machine is decides nothing.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Studio, open_page, open_tab, start_studio, until, until_open
from tests.taggers.test_endpoint import Reply, Server, said

pytestmark = [pytest.mark.browser]
PICTURES, AT_ONCE = 40, 4


class Slow(Server):
    """Answers so many requests as it was let."""

    def __init__(self) -> None:
        super().__init__()
        self._let = threading.Semaphore(0)
        self.script = self._answer
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def _answer(self, number: int) -> Reply:
        self._let.acquire()
        return said("a card with colours")

    def let(self, answers: int) -> None:
        self._let.release(answers)


def tagging(studio: Studio) -> dict[str, str]:
    return next(job for job in studio.get("/studio/jobs") if job["kind"] == "tag")


def written(studio: Studio) -> int:
    """Pictures with something of a source other than a person."""
    return sum(studio.get("/studio/datasets/set?filter=source:slow")["ids"][1::2])


def test_a_run_goes_on_over_a_reload_and_stops_when_told(chromium: Browser, tmp_path: Path, artefacts: Path) -> None:
    folder = tmp_path / "workspace" / "datasets" / "set"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i, cells in enumerate(rng.integers(0, 255, (PICTURES, 12, 16, 3), dtype=np.uint8)):
        Image.fromarray(cells).resize((128, 96)).save(folder / f"{i:03}.jpg", quality=80)
    model, studio = Slow(), start_studio(tmp_path / "workspace")
    try:
        studio.wait_for_worker()
        page, complaints = open_page(chromium, studio)
        open_tab(page, "dataset")
        expect(page.locator("easel-dataset .find .n")).to_have_text(
            f"{PICTURES} of {PICTURES} pictures", timeout=60_000
        )
        page.locator(".ez-tools [data-tool=tag]").click()
        form = page.locator("form[data-act=runtagger]")
        form.locator("select[name=tagger]").select_option("endpoint")
        form.locator("[name=model]").fill("slow")
        form.locator("[name=base_url]").fill(model.url)
        form.locator("button.primary").click()
        words = page.locator("easel-dataset .job .ez-job.running small")
        expect(words).to_have_text("slow", timeout=60_000)
        model.let(3 * AT_ONCE)
        expect(words).to_contain_text(re.compile(rf"\d+ / {PICTURES} · .*pictures per second.*left"), timeout=60_000)
        page.screenshot(path=artefacts / "dataset-tagging.png")
        page.reload()
        until_open(page)
        open_tab(page, "dataset")
        bar = page.locator("easel-dataset .job .ez-job.running [role=progressbar]")
        expect(bar).to_be_visible()
        before = int(bar.get_attribute("aria-valuenow") or 0)
        model.let(2 * AT_ONCE)
        until(lambda: int(bar.get_attribute("aria-valuenow") or 0) > before, 60)
        page.locator("easel-dataset .job [data-do=cancel]").click()
        model.let(AT_ONCE)  # the answers it was waiting for
        expect(page.locator("easel-dataset .job .ez-job.cancelled")).to_be_visible(timeout=60_000)
        assert tagging(studio)["state"] == "cancelled"
        read = written(studio)
        assert 0 < read < PICTURES  # what was read is kept, and a retry goes on behind it
        model.let(PICTURES)
        page.locator("easel-dataset .job [data-do=retry]").click()
        expect(page.locator("easel-dataset .job .ez-job.done")).to_be_visible(timeout=120_000)
        assert studio.get(f"/studio/jobs/{tagging(studio)['id']}")["result"]["skipped"] == read
        assert written(studio) == PICTURES
        assert complaints == []
        page.context.close()
    finally:
        model.let(10 * PICTURES)
        model.shutdown()
        studio.stop()
