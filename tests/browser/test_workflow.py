"""The Workflow tab in a browser: the official editor beside a form, and the drawing where there is no editor."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Frame, Page, expect

from engine.graph.metadata import Metadata, save_picture
from tabs import workbench
from tests.browser.conftest import Studio, open_page, open_tab, start_studio, until, until_kept

pytestmark = [pytest.mark.browser]
# Words of the editor's own in its console that say nothing of ours: what it calls deprecated in itself.
ITS_OWN = ("deprecated", "is an internal module", "Layout normalization", "legacy queue/history menu", "[vite]")
RUN = {"en": "Run", "zh": "运行"}


def a_picture(**changes: Any) -> bytes:
    """A PNG that carries a workflow, as ComfyUI saves one: the demo template with other values."""
    workflow = workbench.template("demo_text_to_image")
    for node in workflow["nodes"]:
        if node["type"] == "KSampler":
            node["widgets_values"][:3] = [changes["seed"], "fixed", changes["steps"]]
    out = io.BytesIO()
    save_picture(Image.new("RGB", (32, 32), "red"), out, "PNG", Metadata(workflow=workflow))
    return out.getvalue()


def editor_of(page: Page) -> Frame:
    """The editor's frame, when its first graph is there."""
    page.wait_for_selector("easel-workflow iframe", timeout=60_000)
    until(lambda: page.evaluate("document.querySelector('easel-workflow').editor?.ready === true"), 120)
    return next(frame for frame in page.frames if "/comfy/" in frame.url)


def widget(frame: Frame, name: str) -> Any:
    return frame.evaluate(
        "(name) => app.rootGraph.nodes.flatMap((node) => node.widgets ?? []).find((one) => one.name === name)?.value",
        name,
    )


DROP = """([selector, name, bytes]) => {
  const files = new DataTransfer();
  files.items.add(new File([new Uint8Array(bytes)], name, { type: 'image/png' }));
  const event = new DragEvent('drop', { dataTransfer: files, bubbles: true, cancelable: true });
  document.querySelector(selector).dispatchEvent(event);
}"""
PASTE = """([selector, text]) => {
  const data = new DataTransfer();
  data.setData('text', text);
  const event = new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true });
  document.querySelector(selector).dispatchEvent(event);
}"""
CHANGE_CFG = """() => {
  const cfg = app.rootGraph.nodes.flatMap((node) => node.widgets ?? []).find((one) => one.name === 'cfg');
  cfg.value = 2.5;
  cfg.callback?.(2.5);
  app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState();
}"""
LISTEN = """(names) => {
  const heard = [];
  for (const name of names) window.comfyAPI.api.api.addEventListener(name, () => heard.push(name));
  return heard;
}"""
EVENTS = ("execution_start", "progress", "progress_state", "executed", "execution_success", "execution_error")
PREVIEWS = ("b_preview", "b_preview_with_metadata")


def drop(page: Page, selector: str, name: str, data: bytes) -> None:
    """A file dropped on an element, as from a file manager."""
    page.evaluate(DROP, [selector, name, list(data)])


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_picture_opens_in_the_editor_is_changed_and_run_with_progress_preview_and_result(
    chromium: Browser, studio: Studio, artefacts: Path, language: str
) -> None:
    page, said = open_page(chromium, studio, language=language, theme="dark" if language == "zh" else "light")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    open_tab(page, "workflow")
    frame = editor_of(page)
    assert frame.evaluate("app.extensionManager.setting.get('Comfy.Locale')") == language
    palette = frame.evaluate("app.extensionManager.setting.get('Comfy.ColorPalette')")
    assert palette == ("dark" if language == "zh" else "light")

    seed = 4242 if language == "en" else 4343
    drop(page, "easel-workflow", "made elsewhere.png", a_picture(seed=seed, steps=11))
    until(lambda: (widget(frame, "seed"), widget(frame, "steps")) == (seed, 11), 60)
    expect(page.locator("easel-workflow [data-field='5.seed'] input")).to_have_value(str(seed), timeout=30_000)

    steps = page.locator("easel-workflow [data-field='5.steps'] input")
    steps.fill("40")
    steps.press("Tab")
    until(lambda: widget(frame, "steps") == 40, 30)
    frame.evaluate(CHANGE_CFG)  # a change made in the editor itself
    heard = frame.evaluate_handle(LISTEN, [*EVENTS, *PREVIEWS])
    before = {job["id"] for job in studio.get("/studio/jobs?states=")}
    if language == "en":
        frame.get_by_role("button", name=RUN[language], exact=True).first.click()
    else:
        page.locator("easel-workflow button[data-what=run]").click()
    made = until(lambda: [job for job in studio.get("/studio/jobs?states=") if job["id"] not in before], 30)[0]
    assert studio.wait_for_job(made["id"]) == "done"
    until(lambda: "execution_success" in heard.json_value(), 30)
    names = heard.json_value()
    assert names[0] == "execution_start" and "execution_error" not in names
    assert {"progress", "progress_state", "executed"} <= set(names)
    assert set(PREVIEWS) & set(names)

    inputs = studio.get(f"/history/{made['id']}")[made["id"]]["prompt"][2]["5"]["inputs"]
    assert (inputs["seed"], inputs["steps"], inputs["cfg"]) == (seed, 40, 2.5)
    expect(page.locator("easel-workflow easel-result button.pic img")).to_be_visible(timeout=30_000)
    until(
        lambda: frame.evaluate("app.rootGraph.nodes.find((node) => node.type === 'SaveImage').imgs?.length === 1"), 30
    )
    page.wait_for_timeout(500)
    page.screenshot(path=artefacts / f"workflow-editor-{language}.png")
    assert [url for url in asked if not url.startswith((studio.url, "data:", "blob:"))] == []
    assert [words for words in said if not any(own in words for own in ITS_OWN)] == []
    page.context.close()


def test_the_form_of_a_workflow_is_chosen_here_saved_and_known_to_the_editor(chromium: Browser, studio: Studio) -> None:
    page, _ = open_page(chromium, studio)
    open_tab(page, "workflow")
    frame = editor_of(page)
    page.select_option("easel-workflow select[name=open]", "template:sdxl_text_to_image")
    until(lambda: widget(frame, "ckpt_name") == "sd_xl_base_1.0.safetensors", 30)
    form = page.locator("easel-workflow .fields")
    expect(form.locator("[data-field='1.ckpt_name'] select")).to_contain_text("not here")
    page.locator("easel-workflow .pick summary").click()
    page.locator("[data-choose='5.cfg']").check()
    expect(form.locator("[data-field='5.cfg'] input")).to_have_value("6.5")
    page.locator("[data-choose='4.width']").uncheck()
    expect(form.locator("[data-field='4.width']")).to_have_count(0)
    chosen = frame.evaluate("JSON.stringify(app.rootGraph.extra.linearData.inputs)")
    assert [5, "cfg"] in json.loads(chosen) and [4, "width"] not in json.loads(chosen)
    page.locator("easel-workflow details.ez-pop summary").click()
    page.fill("easel-workflow details.ez-pop input", "my xl")
    page.locator("easel-workflow details.ez-pop button").click()
    until(lambda: "my xl" in studio.get("/studio/workflows")["saved"], 20)
    kept = json.loads((studio.workspace / "user" / "workflows" / "my xl.json").read_text(encoding="utf-8"))
    assert [5, "cfg"] in kept["extra"]["linearData"]["inputs"]
    page.context.close()


def test_a_picture_of_the_gallery_and_the_form_of_generate_open_as_graphs(chromium: Browser, furnished: Studio) -> None:
    page, _ = open_page(chromium, furnished)
    open_tab(page, "gallery")
    page.locator("easel-gallery .cell").first.click()
    page.locator("easel-gallery [data-send='send.graph']").click()
    page.wait_for_selector("#tab-workflow easel-workflow", state="visible")
    frame = editor_of(page)
    until(lambda: widget(frame, "seed") is not None, 30)
    open_tab(page, "generate")
    page.fill("#generate-prompt textarea", "a green circle")
    page.fill("#generate-seed textarea, #generate-seed input", "987")
    until_kept(furnished, "generate", positive="a green circle", seed="987")
    page.locator("#generate-graph").click()
    page.wait_for_selector("#tab-workflow easel-workflow", state="visible")
    until(lambda: widget(frame, "seed") == 987, 30)
    texts = frame.evaluate(
        "app.rootGraph.nodes.filter((n) => n.type === 'CLIPTextEncode').map((n) => n.widgets[0].value)"
    )
    assert "a green circle" in texts
    page.context.close()


def test_what_a1111_says_is_pasted_into_the_form_and_a_picture_is_dropped_on_it(
    chromium: Browser, studio: Studio
) -> None:
    page, _ = open_page(chromium, studio)
    page.wait_for_selector("#generate-prompt textarea")
    told = "Steps: 7, Sampler: Euler a, CFG scale: 3, Seed: 31337, Size: 128x96, Model: easel-demo"
    text = f"a yellow moon\nNegative prompt: stars\n{told}"
    page.evaluate(PASTE, ["#generate-prompt textarea", text])
    expect(page.locator("#generate-prompt textarea")).to_have_value("a yellow moon")
    expect(page.locator("#generate-negative textarea")).to_have_value("stars")
    expect(page.locator("#generate-seed textarea, #generate-seed input")).to_have_value("31337")
    out = io.BytesIO()
    save_picture(Image.new("RGB", (8, 8)), out, "PNG", Metadata(parameters=text.replace("yellow moon", "blue sun")))
    drop(page, "#tab-generate", "sun.png", out.getvalue())
    expect(page.locator("#generate-prompt textarea")).to_have_value("a blue sun", timeout=20_000)
    page.context.close()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A studio without the editor."""
    folder = tmp_path_factory.mktemp("plain") / "workspace"
    folder.mkdir()
    (folder / "studio.toml").write_text("[server]\neditor = false\n", encoding="utf-8")
    studio = start_studio(folder)
    studio.wait_for_worker()
    yield studio
    studio.stop()


@pytest.mark.parametrize(("language", "theme", "width"), [("en", "light", 1440), ("zh", "dark", 390)])
def test_without_the_editor_there_is_a_drawing_and_the_form_runs(
    chromium: Browser, plain: Studio, artefacts: Path, language: str, theme: str, width: int
) -> None:
    page, said = open_page(chromium, plain, language=language, theme=theme, width=width)
    open_tab(page, "workflow")
    expect(page.locator("easel-workflow svg.ez-graph .node")).to_have_count(7)
    assert page.locator("easel-workflow iframe").count() == 0
    form, drawing = (page.locator(f"easel-workflow .{part}").bounding_box() for part in ("fields", "drawing"))
    assert form and drawing and (form["y"] < drawing["y"] if width < 900 else form["x"] < drawing["x"])
    seed = page.locator("easel-workflow [data-field='5.seed'] input")
    seed.fill("many")
    seed.press("Tab")
    expect(page.locator(".ez-toast.on.bad")).to_contain_text("many")
    seed.fill("18446744073709551615")
    seed.press("Tab")
    expect(page.locator("easel-workflow svg.ez-graph")).to_contain_text("1844674407370955")
    before = {job["id"] for job in plain.get("/studio/jobs?states=")}
    page.locator("easel-workflow button[data-what=run]").click()
    made = until(lambda: [job for job in plain.get("/studio/jobs?states=") if job["id"] not in before], 30)[0]
    assert plain.wait_for_job(made["id"]) == "done"
    assert plain.get(f"/history/{made['id']}")[made["id"]]["prompt"][2]["5"]["inputs"]["seed"] == 2**64 - 1
    expect(page.locator("easel-workflow easel-result button.pic img")).to_be_visible(timeout=30_000)
    expect(seed).not_to_have_value("18446744073709551615")  # the template draws a new one after each run
    page.screenshot(path=artefacts / f"workflow-drawing-{language}-{width}.png", full_page=True)
    assert [words for words in said if "400 (Bad Request)" not in words] == []  # "many" was refused
    page.context.close()


def test_what_a1111_says_is_pasted_on_the_workflow_tab_and_a_text_that_is_being_written_is_left_alone(
    chromium: Browser, plain: Studio
) -> None:
    page, said = open_page(chromium, plain)
    open_tab(page, "workflow")
    fields = page.locator("easel-workflow .fields")
    expect(fields.locator("textarea").first).to_be_visible()
    page.evaluate(PASTE, ["easel-workflow textarea", '{"1": {"class_type": "EmptyImage", "inputs": {}}}'])
    text = "a yellow moon\nNegative prompt: stars\nSteps: 7, Sampler: Euler a, Seed: 31337, Size: 128x96"
    page.evaluate(PASTE, ["body", text])
    expect(fields.locator("[data-field$='.seed'] input")).to_have_value("31337")
    expect(fields.locator("textarea").first).to_have_value("a yellow moon")
    expect(fields).to_contain_text("Negative prompt")
    drop(page, "easel-workflow", "notes.txt", b"nothing of use")
    expect(page.locator(".ez-toast.on.bad")).to_contain_text("'notes.txt' is no picture")
    assert [words for words in said if "400 (Bad Request)" not in words] == []
    page.context.close()
