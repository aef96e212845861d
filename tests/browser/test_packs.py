"""Node packs of others on the System tab: which are loaded, why one is not, and names that are only text."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import ROOT, UNTRANSLATED, Studio, open_page, open_tab, start_studio, until
from tests.browser.test_every_tab import CONTRAST, LOOKS

pytestmark = [pytest.mark.browser]
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    workspace = tmp_path_factory.mktemp("packs") / "workspace"
    shutil.copytree(ROOT / "tests" / "custom" / "packs", workspace / "custom_nodes")
    (workspace / "custom_nodes" / EVIL).mkdir()
    (workspace / "custom_nodes" / EVIL / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}")
    (workspace / "studio.toml").write_text("[custom_nodes]\nenabled = true\n")
    studio = start_studio(workspace)
    until(lambda: studio.get("/studio/packs")["packs"], 120)
    yield studio
    studio.stop()


@pytest.mark.parametrize(("language", "theme", "width"), [("en", "light", 1440), ("zh", "dark", 390)])
def test_packs_are_listed_and_say_why_they_were_not_loaded(
    chromium: Browser, packed: Studio, artefacts: Path, language: str, theme: str, width: int
) -> None:
    page, said = open_page(chromium, packed, language=language, theme=theme, width=width)
    alerts: list[str] = []
    page.on("dialog", lambda dialog: alerts.append(dialog.message))
    open_tab(page, "system")
    rows = page.locator("easel-packs li")
    expect(rows).to_have_count(9)
    expect(rows.nth(0).locator("b")).to_have_text("broken")
    expect(rows.nth(2).locator("b")).to_have_text(EVIL)
    rows.nth(0).locator("summary").click()
    expect(rows.nth(0).locator("pre")).to_contain_text("ModuleNotFoundError: 'comfy.ldm' is not among")
    page.wait_for_timeout(5500)  # it is drawn again
    expect(rows.nth(0).locator("pre")).to_be_visible()
    page.screenshot(path=artefacts / f"packs-{language}-{theme}-{width}.png", full_page=True)
    assert not any(page.evaluate(LOOKS).values()) and not page.evaluate(CONTRAST)
    assert not UNTRANSLATED.findall(page.inner_text("body")) and "packs." not in page.inner_text("easel-packs h3")
    page.context.close()
    assert (said, alerts) == ([], [])
