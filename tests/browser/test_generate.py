"""Generate as a person uses it: a draft and its final, a picture dropped on the gallery, a picture to start from."""

from __future__ import annotations

import base64
import io
import json
import urllib.parse
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Route, expect

from engine.workflows import text_to_image
from studio.access import Access
from tests.browser.conftest import PICTURE, Studio, open_page, open_tab, until, until_kept, until_open

pytestmark = [pytest.mark.browser]


def newest(studio: Studio) -> dict[str, str]:
    return studio.get("/studio/pictures?q=")["pictures"][0]


def generated(page: Page, studio: Studio) -> dict[str, str]:
    """Press the button; the job's picture."""
    before = {job["id"] for job in studio.get("/studio/jobs")}
    page.locator("#generate-go").click()
    new = until(lambda: [j for j in studio.get("/studio/jobs") if j["id"] not in before], 30)[0]
    assert studio.wait_for_job(new["id"]) == "done"
    history = studio.get(f"/history/{new['id']}")[new["id"]]
    return next(image for output in history["outputs"].values() for image in output.get("images", []))


def fetch(studio: Studio, said: dict[str, str]) -> bytes:
    query = urllib.parse.urlencode({key: said[key] for key in ("filename", "subfolder", "type")})
    with urllib.request.urlopen(f"{studio.url}/view?{query}", timeout=30) as answer:
        return answer.read()


def picture_of(studio: Studio, said: dict[str, str]) -> Image.Image:
    return Image.open(io.BytesIO(fetch(studio, said)))


def drop(page: Page, target: Locator, name: str, data: bytes) -> None:
    """A file dragged from the desktop onto a part of the page."""
    transfer = page.evaluate_handle(
        """([name, data]) => {
            const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, { type: 'image/png' }));
            return transfer;
        }""",
        [name, base64.b64encode(data).decode()],
    )
    target.dispatch_event("dragover", {"dataTransfer": transfer})
    target.dispatch_event("drop", {"dataTransfer": transfer})


def test_a_draft_is_quick_marked_and_kept_apart_from_finals(
    chromium: Browser, furnished: Studio, artefacts: Path
) -> None:
    page, said = open_page(chromium, furnished)
    open_tab(page, "generate")
    page.locator(".ez-generate .set button.label-wrap, .ez-generate .set .label-wrap").first.click()
    box = page.get_by_label("Draft")
    box.check()
    until_kept(furnished, "generate", draft=True)
    draft = generated(page, furnished)
    assert draft["type"] == "temp"
    assert picture_of(furnished, draft).info["easel_draft"] == "true"
    expect(page.locator("easel-result img").first).to_be_visible()
    page.screenshot(path=artefacts / "generate-draft.png")
    box.uncheck()
    until_kept(furnished, "generate", draft=False)
    final = generated(page, furnished)
    assert final["type"] == "output"
    assert "easel_draft" not in picture_of(furnished, final).info
    assert newest(furnished)["filename"] == final["filename"]
    assert said == []
    page.context.close()


def test_a_picture_dropped_on_the_gallery_brings_its_settings_back(
    chromium: Browser, furnished: Studio, artefacts: Path
) -> None:
    page, said = open_page(chromium, furnished)
    open_tab(page, "generate")
    prompt = page.locator("#generate-prompt textarea")
    prompt.fill("a green heart, white background")
    until_kept(furnished, "generate", positive="a green heart, white background")
    made = fetch(furnished, generated(page, furnished))
    prompt.fill("something else")
    open_tab(page, "gallery")
    drop(page, page.locator("easel-gallery"), "from elsewhere.png", made)
    expect(prompt).to_have_value("a green heart, white background", timeout=20_000)
    assert said == []
    page.context.close()


def test_a_dropped_picture_is_what_generate_starts_from(chromium: Browser, furnished: Studio, artefacts: Path) -> None:
    page, said = open_page(chromium, furnished)
    open_tab(page, "generate")
    buffer = io.BytesIO()
    Image.new("RGB", (128, 128), (200, 30, 30)).save(buffer, "PNG")
    drop(page, page.locator("easel-start"), "红色 start.png", buffer.getvalue())
    expect(page.locator("easel-start img")).to_be_visible(timeout=20_000)
    until_kept(furnished, "generate", image="红色 start.png")
    made = picture_of(furnished, generated(page, furnished))
    nodes = {node["class_type"] for node in prompt_in(made).values()}
    assert {"LoadImage", "VAEEncode"} <= nodes
    page.screenshot(path=artefacts / "generate-start.png")
    page.locator("easel-start button").click()
    expect(page.locator("easel-start input[type=file]")).to_be_attached()
    assert said == []
    page.context.close()


def test_what_is_typed_before_the_draft_comes_is_not_overwritten_by_it(chromium: Browser, furnished: Studio) -> None:
    page, _ = open_page(chromium, furnished)
    page.locator("#generate-prompt textarea").fill("of yesterday")
    page.locator("#generate-negative textarea").fill("kept")
    until_kept(furnished, "generate", positive="of yesterday", negative="kept")
    held: list[Route] = []
    may: list[bool] = []
    page.route("**/gradio_api/run/predict*", lambda route: route.continue_() if may else held.append(route))
    page.reload()
    prompt = page.locator("#generate-prompt textarea")
    prompt.fill("typed at once")
    until(lambda: page.title() and held, 20)
    may.append(True)
    for route in held:
        route.continue_()
    until_open(page)
    expect(prompt).to_have_value("typed at once")
    expect(page.locator("#generate-negative textarea")).to_have_value("kept")
    page.context.close()


def test_a_programs_picture_does_not_take_the_place_of_ones_own(chromium: Browser, furnished: Studio) -> None:
    page, said = open_page(chromium, furnished)
    open_tab(page, "generate")
    page.locator("#generate-prompt textarea").fill("a blue square")
    until_kept(furnished, "generate", positive="a blue square")
    mine = generated(page, furnished)["filename"]
    shown = page.locator(f'easel-result .pic[data-key="{mine}"]').first
    expect(shown).to_be_visible()
    token = Access(furnished.workspace / "access.json").new_token("krita")
    prompt = text_to_image(replace(PICTURE, positive="a red star"))
    request = urllib.request.Request(
        f"{furnished.url}/prompt",
        json.dumps({"prompt": prompt}).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {token}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        job = json.loads(answer.read())["prompt_id"]
    assert furnished.wait_for_job(job) == "done"
    assert furnished.get(f"/studio/jobs/{job}")["user"] == "krita"
    open_tab(page, "queue")
    expect(page.locator("easel-queue")).to_contain_text("krita")  # the page knows of it
    open_tab(page, "generate")
    expect(shown).to_be_visible()
    assert page.locator("easel-result:visible .pic").count() == 1
    assert said == []
    page.context.close()


def prompt_in(picture: Image.Image) -> dict[str, dict[str, str]]:
    return json.loads(picture.info["prompt"])
