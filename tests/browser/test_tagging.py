"""Tagging as a person sees it go on: a bar with what is left, which a reload does not lose, and a cancel."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Studio, open_page, open_tab, start_studio, until

pytestmark = [pytest.mark.browser]
PICTURES = 400


def tagging(studio: Studio) -> dict[str, str]:
    return next(job for job in studio.get("/studio/jobs") if job["kind"] == "tag")


def test_a_run_goes_on_over_a_reload_and_stops_when_told(chromium: Browser, tmp_path: Path, artefacts: Path) -> None:
    folder = tmp_path / "workspace" / "datasets" / "set"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i, cells in enumerate(rng.integers(0, 255, (PICTURES, 12, 16, 3), dtype=np.uint8)):
        Image.fromarray(cells).resize((1280, 960)).save(folder / f"{i:03}.jpg", quality=80)
    studio = start_studio(tmp_path / "workspace")
    try:
        studio.wait_for_worker()
        page, said = open_page(chromium, studio)
        open_tab(page, "dataset")
        # so many files are taken in by a job, and appear when it is done
        expect(page.locator("easel-dataset .find .n")).to_have_text(
            f"{PICTURES} of {PICTURES} pictures", timeout=60_000
        )
        page.locator(".ez-tools [data-tool=tag]").click()
        page.locator("form[data-act=runtagger] button.primary").click()
        words = page.locator("easel-dataset .job .ez-job.running small")
        expect(words).to_contain_text(re.compile(rf"\d+ / {PICTURES} · .*pictures per second.*left"), timeout=60_000)
        page.screenshot(path=artefacts / "dataset-tagging.png")
        page.reload()
        page.wait_for_selector("easel-switches button")
        page.wait_for_selector("#ez-tabs")
        open_tab(page, "dataset")
        bar = page.locator("easel-dataset .job .ez-job.running [role=progressbar]")
        expect(bar).to_be_visible()
        before = int(bar.get_attribute("aria-valuenow") or 0)
        until(lambda: int(bar.get_attribute("aria-valuenow") or 0) > before, 60)
        page.locator("easel-dataset .job [data-do=cancel]").click()
        expect(page.locator("easel-dataset .job .ez-job.cancelled")).to_be_visible(timeout=60_000)
        assert tagging(studio)["state"] == "cancelled"
        read = sum(studio.get("/studio/datasets/set?filter=source:tagger")["ids"][1::2])
        assert read > 0  # what was read is kept, and a retry goes on behind it
        page.locator("easel-dataset .job [data-do=retry]").click()
        expect(page.locator("easel-dataset .job .ez-job.done")).to_be_visible(timeout=120_000)
        assert studio.get(f"/studio/jobs/{tagging(studio)['id']}")["result"]["skipped"] >= read
        assert said == []
        page.context.close()
    finally:
        studio.stop()
