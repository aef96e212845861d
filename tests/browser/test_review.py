"""Reviewing tags by keyboard, undo after a restart of the studio, and a grid that stays small with many."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from engine.dataset.library import Library
from engine.workspace import Workspace
from tests.browser.conftest import Studio, open_page, open_tab, start_studio, until
from tests.taggers.synthetic import write_wd

pytestmark = [pytest.mark.browser]
MANY = 10_000


def captions(studio: Studio) -> list[str]:
    ids = [str(row[0]) for row in studio.get("/studio/datasets/set")["pictures"]]
    return [row[3] for row in studio.get(f"/studio/datasets/set/cells?ids={','.join(ids)}")]


def choose_dataset(page: Page, name: str) -> None:
    open_tab(page, "dataset")
    page.wait_for_selector("easel-dataset .ez-grid .cell")
    page.select_option("easel-dataset select[name=dataset]", name)
    page.wait_for_timeout(500)


def test_a_review_by_keyboard_is_undone_after_a_restart(chromium: Browser, tmp_path: Path) -> None:
    folder = tmp_path / "workspace" / "datasets" / "set"
    folder.mkdir(parents=True)
    for i, colour in enumerate(("red", "green")):
        Image.new("RGB", (32, 32), colour).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text("round, shiny, small", encoding="utf-8")
    studio = start_studio(tmp_path / "workspace")
    try:
        page, said = open_page(chromium, studio)
        open_tab(page, "dataset")
        page.select_option("easel-dataset [name=order]", "review")
        page.locator("easel-dataset .cell").first.click()
        expect(page.locator("aside .ez-tags li")).to_have_count(3)
        asked: list[Route] = []
        page.route("**/decide", lambda route: asked.append(route) or (len(asked) != 2 and route.continue_()))
        page.keyboard.press("a")  # round is right
        page.keyboard.press("a")  # shiny too
        expect(page.locator("aside .ez-tags li.mine")).to_have_count(2)
        until(lambda: page.title() and len(asked) == 2, 20)  # the first is answered, the second is on its way
        page.keyboard.press("r")  # small is not
        asked[1].continue_()
        until(lambda: page.title() and sorted(captions(studio)) == ["round, shiny", "round, shiny, small"], 20)
        expect(page.locator(".cell.on span")).to_have_text("round, shiny")
        expect(page.locator(".cell").first).to_have_class(re.compile("on"))  # it didn't run to the end of the queue
        page.keyboard.press("n")
        page.keyboard.press("a")  # of the next picture, which is not here yet
        until(lambda: page.title() and studio.get("/studio/datasets/set")["undo"] == "+ round", 20)
        expect(page.locator("aside .sub").first).to_contain_text("1.png")
        assert said == []
        page.context.close()
        studio.stop()

        studio = start_studio(tmp_path / "workspace")
        page, said = open_page(chromium, studio)
        open_tab(page, "dataset")
        expect(page.locator("[data-act=undo]")).to_be_enabled()
        page.keyboard.press("Control+z")  # nothing has the focus
        until(lambda: studio.get("/studio/datasets/set")["undo"] == "− small", 20)
        page.locator("[data-act=undo]").click()
        until(lambda: captions(studio) == ["round, shiny, small"] * 2, 20)
        page.locator("[data-act=redo]").click()
        until(lambda: captions(studio) == ["round, shiny", "round, shiny, small"], 20)
        assert said == []
        page.context.close()
    finally:
        studio.stop()


def test_a_review_session_from_two_taggers_to_files(chromium: Browser, tmp_path: Path) -> None:
    """Tag with two taggers, accept and reject by keyboard, replace in many, undo, restart, undo again, export."""
    workspace = tmp_path / "workspace"
    folder = workspace / "datasets" / "set"
    folder.mkdir(parents=True)
    for i, colour in enumerate(("red", "blue")):
        Image.new("RGB", (128, 128), colour).save(folder / f"{i}.png")
    write_wd(workspace / "models" / "taggers" / "colours")
    studio = start_studio(workspace)
    try:
        studio.wait_for_worker()
        studio.post("/studio/datasets/set/rules", {"order": "alphabet"})
        page, said = open_page(chromium, studio)
        open_tab(page, "dataset")
        for tagger in ("colours", "tagger"):
            page.locator(".ez-tools [data-tool=tag]").click()
            page.select_option("form[data-act=runtagger] select[name=tagger]", tagger)
            page.locator("form[data-act=runtagger] button.primary").click()
            until(lambda name=tagger: f"tagger:{name}" in sources(studio), 60)
        for job in studio.get("/studio/jobs?states="):
            studio.wait_for_job(job["id"])
        expect(page.locator("easel-dataset .job .state:not(.who)")).to_have_text("done", timeout=60_000)

        page.locator("easel-dataset .cell").first.click()
        expect(page.locator("aside .ez-tags li.on")).to_have_count(8)
        for key in "aar":  # red background, one; not red theme
            page.keyboard.press(key)
        until(lambda: studio.get("/studio/datasets/set")["undo"] == "− red theme", 20)
        page.keyboard.press("n")
        expect(page.locator("aside .sub").first).to_contain_text("1.png")
        page.keyboard.press("r")
        until(lambda: studio.get("/studio/datasets/set")["undo"] == "− blue background", 20)

        page.locator(".ez-tools [data-tool=bulk]").click()
        page.select_option("form[data-act=bulkpreview] select[name=action]", "replace")
        page.fill("form[data-act=bulkpreview] [name=find]", "one")
        page.fill("form[data-act=bulkpreview] [name=replace]", "single card")
        page.locator("form[data-act=bulkpreview] button").click()
        expect(page.locator(".tool .changes tr")).to_have_count(2)
        page.locator("[data-act=bulkapply]").click()
        until(lambda: all("single card" in text for text in captions(studio)), 20)
        page.locator("[data-act=undo]").click()
        until(lambda: all("single card" not in text for text in captions(studio)), 20)
        assert said == []
        page.context.close()
        studio.stop()

        studio = start_studio(workspace)
        page, said = open_page(chromium, studio)
        open_tab(page, "dataset")
        page.locator("easel-dataset .cell").first.click()
        page.keyboard.press("Control+z")
        until(lambda: "blue background" in captions(studio)[1], 20)
        page.locator(".ez-tools [data-tool=exchange]").click()
        page.locator("form[data-act=export] button.primary").click()
        until(lambda: (folder / "1.txt").is_file(), 20)
        assert (folder / "0.txt").read_bytes() == (
            b"fate (series), o_o, one, red background, small, artoria pendragon (fate)"
        )
        assert (folder / "1.txt").read_bytes() == (
            b"blue background, blue theme, fate (series), o_o, one, small, artoria pendragon (fate)"
        )
        assert said == []
        page.context.close()
    finally:
        studio.stop()


def test_a_review_needs_no_mouse(chromium: Browser, furnished: Studio) -> None:
    furnished.post("/studio/datasets/draft", {"current": "bbdr", "filter": "", "tool": "review"})
    before = furnished.get("/studio/datasets/bbdr")["undo"]
    page, said = open_page(chromium, furnished)
    open_tab(page, "dataset")
    page.wait_for_selector("easel-dataset .cell img")
    page.locator("easel-dataset [type=search]").focus()
    for _ in range(2):
        page.keyboard.press("Tab")  # the order, the tags
    names = page.locator("easel-dataset nav .list a")
    expect(names.first).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(names.nth(1)).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("easel-dataset .ez-grid")).to_be_focused()
    page.keyboard.press("ArrowRight")
    marked = page.locator("aside .ez-tags li.next .tag")
    expect(marked).to_have_count(1)
    tag = marked.inner_text()
    page.keyboard.press("a")
    until(lambda: furnished.get("/studio/datasets/bbdr")["undo"] == f"+ {tag}", 20)
    page.keyboard.press("Control+z")
    until(lambda: furnished.get("/studio/datasets/bbdr")["undo"] == before, 20)
    assert said == []
    page.context.close()


def sources(studio: Studio) -> set[str]:
    return {f"tagger:{source['name']}" for source in studio.get("/studio/datasets/set")["sources"]}


def test_ten_thousand_pictures_keep_the_grid_small(chromium: Browser, furnished: Studio) -> None:
    furnished.post("/studio/datasets", {"name": "many"})
    with Library(Workspace(furnished.workspace)).open("many") as dataset, dataset.store.writing():
        for i in range(MANY):
            facts = {"width": 64, "height": 64, "mode": "RGB", "format": "PNG", "bytes": 1}
            picture = dataset.store.add_picture(f"{i:032x}", **facts)
            dataset.store.put_file(f"{i:05}.png", picture, 1, 1)
    page, _ = open_page(chromium, furnished, width=2560)
    choose_dataset(page, "many")
    expect(page.locator("easel-dataset .find .n")).to_contain_text(str(MANY))
    grid = page.locator("easel-dataset .ez-grid")
    most = 0
    for part in (0, 0.2, 0.5, 0.9, 1):
        grid.evaluate("(box, part) => { box.scrollTop = part * box.scrollHeight; }", part)
        page.wait_for_timeout(150)
        most = max(most, grid.evaluate("(box) => box.querySelectorAll('*').length"))
    assert 20 < most <= 400
    expect(grid.locator(f".cell[data-i='{MANY - 1}']")).to_be_visible()
    grid.focus()
    page.keyboard.press("Control+a")
    expect(page.locator("easel-dataset aside b")).to_contain_text(str(MANY))
    page.context.close()
    furnished.post("/studio/datasets/draft", {"current": "bbdr"})
