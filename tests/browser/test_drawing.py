"""Drawing on a picture of a dataset with mouse and finger: a region to ask a model about, a mask by brush."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import Studio, open_page, open_tab, start_studio, until
from tests.taggers.tiny import write_florence

pytestmark = [pytest.mark.browser]


def touched(page: Page, place: Locator, start: tuple[float, float], end: tuple[float, float]) -> None:
    """A finger goes from one place to another, in shares of the element."""
    box = place.bounding_box()
    assert box is not None
    client = page.context.new_cdp_session(page)
    points = [
        [
            {"x": box["x"] + (start[0] + (end[0] - start[0]) * i / 5) * box["width"]}
            | {"y": box["y"] + (start[1] + (end[1] - start[1]) * i / 5) * box["height"]}
        ]
        for i in range(6)
    ]
    client.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": points[0]})
    for one in points[1:]:
        client.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": one})
    page.wait_for_timeout(400)  # a tap just after a swift stroke would only stop its fling
    client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait_for_timeout(400)


def dragged(page: Page, place: Locator, start: tuple[float, float], end: tuple[float, float]) -> None:
    box = place.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + start[0] * box["width"], box["y"] + start[1] * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + end[0] * box["width"], box["y"] + end[1] * box["height"], steps=5)
    page.mouse.up()


def regions(studio: Studio, picture: int) -> list[dict[str, Any]]:
    return studio.get(f"/studio/datasets/set/about/{picture}")["regions"]


def test_a_region_is_drawn_by_mouse_or_finger_and_named_by_the_model(
    chromium: Browser, tmp_path: Path, artefacts: Path
) -> None:
    workspace = tmp_path / "workspace"
    folder = workspace / "datasets" / "set"
    folder.mkdir(parents=True)
    Image.new("RGB", (128, 96), "red").save(folder / "a.png")
    write_florence(workspace / "models" / "captioners" / "florence")
    studio = start_studio(workspace)
    try:
        studio.post("/studio/datasets/draft", {"tool.florence.max_new_tokens": "8"})
        studio.wait_for_worker()
        page, said = open_page(chromium, studio)
        open_tab(page, "dataset")
        page.locator(".ez-tools [data-tool=tag]").click()
        page.select_option("form[data-act=runtagger] select[name=tagger]", "florence")
        page.select_option("form[data-act=runtagger] select[name=task]", "<REGION_TO_CATEGORY>")
        ask = page.locator("[data-act=drawregion]")
        ask.click()
        expect(page.locator(".ez-toast.on.bad")).to_be_visible()  # no picture is chosen
        page.locator("easel-dataset .cell").first.click()
        expect(page.locator("aside .sub").first).to_contain_text("a.png")

        ask.click()
        dragged(page, page.locator("dialog.ez-draw .stage"), (0.25, 0.25), (0.75, 0.5))
        page.screenshot(path=artefacts / "dataset-region.png")
        page.locator("dialog.ez-draw [data-do=save]").click()
        expect(page.locator("dialog.ez-draw")).to_have_count(0)
        (first,) = until(lambda: regions(studio, 1), 60)
        corners = [first["outline"][i] for i in (0, 1, 4, 5)]
        assert corners == pytest.approx([0.25, 0.25, 0.75, 0.5], abs=0.02)
        assert first["label"]
        expect(page.locator("aside .ez-regions li")).to_have_count(1)
        assert studio.get("/studio/datasets/set/about/1")["text"] == ""
        assert said == []
        page.context.close()

        context = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
        page = context.new_page()
        page.goto(studio.url)
        page.wait_for_selector("#ez-tabs")
        open_tab(page, "dataset")
        page.locator("easel-dataset .cell").first.tap()
        page.locator("[data-act=drawregion]").tap()
        touched(page, page.locator("dialog.ez-draw .stage"), (0.5, 0.5), (0.9, 0.9))
        page.screenshot(path=artefacts / "dataset-region-touch.png")
        page.locator("dialog.ez-draw [data-do=save]").tap()
        found = until(lambda: len(found := regions(studio, 1)) == 2 and found, 60)
        assert [found[1]["outline"][i] for i in (0, 1, 4, 5)] == pytest.approx([0.5, 0.5, 0.9, 0.9], abs=0.04)

        page.locator("aside [data-act=mask]").tap()
        touched(page, page.locator("dialog.ez-draw canvas"), (0.2, 0.5), (0.8, 0.5))
        page.locator("dialog.ez-draw [data-do=save]").tap()
        until(lambda: studio.get("/studio/datasets/set/about/1")["mask"], 20)
        context.close()
    finally:
        studio.stop()
