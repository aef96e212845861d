"""What the page says when it is asked for something that can't be."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tabs.words import table
from tests.browser.conftest import Studio, open_page, open_tab

pytestmark = [pytest.mark.browser]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_refusal_is_headed_in_the_language_of_the_page(chromium: Browser, studio: Studio, language: str) -> None:
    page, _ = open_page(chromium, studio, language=language)
    open_tab(page, "train")
    page.locator("#train-start").click()  # no dataset was chosen
    title = page.locator("[data-testid=toast-body] .toast-title.error")
    expect(title).to_be_visible()
    shown = title.evaluate("(one) => [getComputedStyle(one, '::before').content, getComputedStyle(one).fontSize]")
    words = table(language)["refused"]
    assert shown == [f'"{words}"', "0px"]
    expect(page.get_by_test_id("toast-text")).not_to_be_empty()
    page.context.close()
