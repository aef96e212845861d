"""Every tab in both languages, both themes, wide and narrow: nothing runs over, all is translated and legible, buttons
have names and pictures words, and the console stays empty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import UNTRANSLATED, Studio, open_page, open_tab

pytestmark = [pytest.mark.browser]
TABS = ("generate", "workflow", "dataset", "train", "gallery", "queue", "models", "system")
WIDTHS = {"wide": 1440, "narrow": 390}
FULL = {  # what must be there before a tab is looked at
    "generate": "easel-result button.pic img",
    "workflow": "easel-workflow .fields input",
    "dataset": "easel-dataset .ez-grid .cell img",
    "train": "#train-start",
    "gallery": "easel-gallery .cell img",
    "queue": "easel-queue .ez-job.failed",
    "models": "easel-models .ez-table",
    "system": "easel-system .ez-meter",
}

SCRIPTS = Path(__file__).parent
CONTRAST = (SCRIPTS / "contrast.js").read_text(encoding="utf-8").split("\n", 1)[1]
LOOKS = (SCRIPTS / "looks.js").read_text(encoding="utf-8").split("\n", 1)[1]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_tab_is_whole(chromium: Browser, furnished: Studio, artefacts: Path, language: str, theme: str) -> None:
    page, said = open_page(chromium, furnished, language=language, theme=theme)
    wrong: dict[str, Any] = {}
    for width, pixels in WIDTHS.items():
        page.set_viewport_size({"width": pixels, "height": 900})
        page.wait_for_timeout(300)
        for name in TABS:
            found = look(page, name, artefacts / f"{name}-{language}-{theme}-{width}.png")
            wrong |= {f"{name} {width} {what}": which for what, which in found.items() if which}
    assert wrong == {}
    assert said == []
    page.context.close()


def look(page: Page, name: str, picture: Path) -> dict[str, Any]:
    open_tab(page, name)
    page.wait_for_selector(FULL[name], state="visible")
    found: dict[str, Any] = {}
    for _ in range(20):  # until it has settled: what fades in and what is measured anew takes its time
        page.wait_for_timeout(250)
        found = {
            **page.evaluate(LOOKS),
            "untranslated": UNTRANSLATED.findall(page.inner_text("body")),
            "contrast": page.evaluate(CONTRAST),
        }
        if not any(found.values()):
            break
    page.screenshot(path=picture)
    return found


def test_the_language_can_be_switched_and_the_tab_stays(chromium: Browser, studio: Studio) -> None:
    page, _ = open_page(chromium, studio)  # leaving a page breaks off what it asks, and Gradio says so
    open_tab(page, "system")
    for language, name in (("zh-CN", "系统"), ("en", "System")):
        page.locator("easel-switches [data-what=lang]").click()
        expect(page.locator("html")).to_have_attribute("lang", language)
        expect(page.locator("#ez-tabs button[role=tab][aria-selected=true]")).to_have_text(name)
        page.wait_for_selector("easel-tokens h3")
    page.context.close()
