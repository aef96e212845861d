"""Every tab in both languages, both themes, wide and narrow: nothing runs over, all is translated and legible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tabs.words import table
from tests.browser.conftest import UNTRANSLATED, Studio

pytestmark = [pytest.mark.browser]
TABS = ("generate", "dataset", "train", "gallery", "queue", "models", "system")
WIDTHS = {"wide": 1440, "narrow": 390}

CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8").split("\n", 1)[1]
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


def open_page(chromium: Browser, studio: Studio, *, width: int, language: str, theme: str) -> tuple[Page, list[str]]:
    context = chromium.new_context(
        viewport={"width": width, "height": 900}, locale="zh-CN" if language == "zh" else "en-US"
    )
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"{studio.url}/?__theme={theme}")
    page.wait_for_selector("easel-switches button")
    page.wait_for_selector("#ez-tabs")
    return page, said


def open_tab(page: Page, name: str) -> None:
    """Click the tab, in the overflow menu where there is no room for it."""
    button = page.locator(f"#ez-tabs button[role=tab][data-tab-id='{name}']")
    if not button.count():
        page.locator("#ez-tabs .overflow-menu > button").click()
        language = "zh" if page.evaluate("document.documentElement.lang").startswith("zh") else "en"
        button = page.locator("#ez-tabs .overflow-dropdown").get_by_text(table(language)[f"tab.{name}"], exact=True)
    button.click()
    page.wait_for_timeout(400)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_tab_is_whole(
    chromium: Browser, studio: Studio, artefacts: Path, language: str, theme: str, width: str
) -> None:
    page, said = open_page(chromium, studio, width=WIDTHS[width], language=language, theme=theme)
    wrong: dict[str, Any] = {}
    for name in TABS:
        open_tab(page, name)
        page.wait_for_timeout(600)
        page.screenshot(path=artefacts / f"{name}-{language}-{theme}-{width}.png", full_page=True)
        found = {
            "overflow": page.evaluate(OVERFLOW),
            "untranslated": UNTRANSLATED.findall(page.inner_text("body")),
            "contrast": page.evaluate(CONTRAST),
        }
        if any(found.values()):
            wrong[name] = found
    page.context.close()
    assert wrong == {}
    assert said == []
