"""What the page says when it is asked for something that can't be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tabs.words import table
from tests.browser.conftest import Studio, open_page, open_tab, start_studio

pytestmark = [pytest.mark.browser]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A studio without a dataset: there is nothing to train on."""
    studio = start_studio(tmp_path_factory.mktemp("empty") / "workspace")
    yield studio
    studio.stop()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_refusal_is_headed_in_the_language_of_the_page(chromium: Browser, empty: Studio, language: str) -> None:
    page, _ = open_page(chromium, empty, language=language)
    open_tab(page, "train")
    page.locator("#train-start").click()  # no dataset was chosen
    title = page.locator("[data-testid=toast-body] .toast-title.error")
    expect(title).to_be_visible()
    shown = title.evaluate("(one) => [getComputedStyle(one, '::before').content, getComputedStyle(one).fontSize]")
    words = table(language)["refused"]
    assert shown == [f'"{words}"', "0px"]
    expect(page.get_by_test_id("toast-text")).not_to_be_empty()
    page.context.close()
